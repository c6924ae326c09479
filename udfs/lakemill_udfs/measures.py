"""What one task measures of its models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Measures:
    """Seconds of each stage, over all batches of one task."""

    predict_seconds: float = 0.0
    format_seconds: float = 0.0
    model_load_seconds: float = 0.0
    models_loaded: int = 0
    model_bytes: int = 0
    models_dropped: int = 0
    cascade_rows: int = 0
    cascade_rows_then: int = 0
