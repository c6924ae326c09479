"""The demo's digits in a Delta table, without Spark."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from lakemill.demo.data import write_files


def write_digits(lake: Path) -> None:
    """Write the demo's digits as ingest would."""
    files = write_files(lake / "files")
    images = sorted(path for path in files.digits.rglob("*.png") if re.fullmatch(r"\d{4}", path.stem))
    rows = {
        "path": [str(path) for path in images],
        "label": [path.parent.name for path in images],
        "content": [path.read_bytes() for path in images],
        "length": [path.stat().st_size for path in images],
    }
    write_deltalake(lake / "images", pa.table(rows))
