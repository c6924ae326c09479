"""Files that tests ingest, and what became of them, read without Spark."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import DeltaTable
from PIL import Image


def image(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (12, 8), **options: Any) -> bytes:
    """Return noise as an image file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Write files below ``folder/src``; one that was there gets a newer time."""
    for name, data in files.items():
        path = folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        newer = path.stat().st_mtime_ns + 1_000_000 if path.exists() else None
        path.write_bytes(data)
        if newer:
            os.utime(path, ns=(newer, newer))


def rows(table: Path, *columns: str) -> dict[str, dict[str, Any]]:
    """Return a table's rows by the part of the path below ``src``, read without Spark."""
    found = DeltaTable(table).to_pyarrow_table(columns=["path", *columns] if columns else None).to_pylist()
    by_name = {row["path"].partition("/src/")[2]: row for row in found}
    assert len(by_name) == len(found), "a path is there twice"
    return by_name


def operations(table: Path) -> list[str]:
    """Return what each commit of a table did, oldest first."""
    return [entry["operation"] for entry in reversed(DeltaTable(table).history())]
