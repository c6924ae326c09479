"""What one task measures of its models."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lakemill_udfs.models.cache import LoadedModel
from lakemill_udfs.models.model import Arrays


@dataclass
class Measures:
    """Seconds of each stage, over all batches of one task."""

    predict_seconds: float = 0.0
    format_seconds: float = 0.0
    model_load_seconds: float = 0.0
    model_warm_up_seconds: float = 0.0
    models_loaded: int = 0
    model_bytes: int = 0
    models_dropped: int = 0
    cascade_rows: int = 0
    cascade_rows_then: int = 0


def measured(loaded: LoadedModel, measures: Measures) -> Callable[[Arrays], Arrays]:
    """Return a model's call; its first one after loading, in which runtimes still allocate and plan, is its warm-up."""

    def predict(inputs: Arrays) -> Arrays:
        if loaded.is_warm:
            return loaded.model.predict(inputs)
        started = time.perf_counter()
        outputs = loaded.model.predict(inputs)
        loaded.is_warm = True
        measures.model_warm_up_seconds += time.perf_counter() - started
        return outputs

    return predict
