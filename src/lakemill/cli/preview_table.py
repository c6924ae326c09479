"""Predictions on a terminal: one column for each output, and what went wrong in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lakemill_udfs.masking import printable

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

LONGEST_CELL = 48
LISTED = 5


def preview_table(frame: pd.DataFrame) -> Table:
    """Return predictions as a table: keys, ``out.<name>``, the checks that failed, the error.

    Args:
        frame: As ``preview`` returns it, with structs as dicts or rows.
    """
    from rich.table import Table
    from rich.text import Text

    rows = [_flat(row) for row in frame.to_dict("records")]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=f"{len(rows)} rows, nothing written")
    for name in names:
        table.add_column(Text(printable(name)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(row.get(name, ""))) for name in names))
    return table


def _flat(row: Mapping[str, Any]) -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, value in row.items():
        struct = value.asDict() if hasattr(value, "asDict") else value
        if name == "out":
            cells |= {f"out.{output}": _text(inner) for output, inner in (struct or {}).items()}
        elif name == "anomaly":
            flagged = [check for check, failed in (struct or {}).items() if failed is True]
            cells |= {"checks failed": ", ".join(flagged)} if flagged else {}
        elif name == "error":
            cells |= {"error": f"{struct['stage']}: [{struct['code']}] {struct['message']}"} if struct else {}
        elif name not in ("time", "metadata"):
            # Paths begin alike and differ at their end.
            text = _text(value)
            cells[name] = text if len(text) <= LONGEST_CELL else "..." + text[3 - LONGEST_CELL :]
    return cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, bytes | bytearray):
        return f"{len(value):,} bytes"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        values = list(value)
        listed = ", ".join(map(_text, values[:LISTED]))
        return listed if len(values) <= LISTED else f"{listed}, ... ({len(values):,} values)"
    return str(value)
