"""What `lakemill predict --limit` shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.console import Console

from lakemill.cli.preview_table import preview_table


def shown(rows: list[dict[str, object]]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(preview_table(pd.DataFrame(rows)))
    return capture.get()


def test_each_output_is_a_column_and_long_paths_show_their_end() -> None:
    out = {"label": "cat", "probability": np.float32(0.98768), "scores": np.arange(9.0), "mask": b"\x00" * 2000}
    text = shown([{"path": "/data/" + "x" * 60 + "/cat.png", "time": 1, "out": out, "error": None, "metadata": {}}])
    for part in ("out.label", "cat.png", "0.9877", "0, 1, 2, 3, 4, ... (9 values)", "2,000 bytes", "1 rows, nothing"):
        assert part in text
    assert "metadata" not in text
    assert "/data/" not in text


def test_errors_and_failed_checks_are_said_and_markup_is_only_text() -> None:
    error = {"stage": "decode", "code": "IMAGE_TRUNCATED", "message": "[bold]ends early"}
    rows = [
        {"path": "a", "out": None, "anomaly": None, "error": error},
        {"path": "b", "out": {"label": "cat"}, "anomaly": {"count": 1, "unsure": True, "odd": False}, "error": None},
    ]
    text = shown(rows)
    assert "decode: [IMAGE_TRUNCATED] [bold]ends early" in text
    assert "unsure" in text
    assert "odd" not in text
