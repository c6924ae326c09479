"""Files that ``infer`` reads: Arrow, Parquet, JSON, pandas' JSON records and images."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill.in_process.custom_json import CUSTOM
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ImageStep

UNREADABLE = (ValueError, TypeError, LookupError, OSError, RecursionError, pa.ArrowException)
"""What json, pandas and pyarrow raise for a file that is damaged."""

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")


def read_data(path: str | Path, pipeline: Pipeline | None = None, data_format: str | None = None) -> Any:
    """Return a file's content as ``infer`` takes it.

    Args:
        path: ``.arrow`` (file or stream) and ``.parquet`` give a table, ``.df.json`` (pandas' records) a DataFrame,
            ``.json`` (a dict of batches, or a list of records) a dict, an image a dict of one row.
        pipeline: Its image step names the columns of an image; None takes no images.
        data_format: ``custom-json``: whatever JSON the file holds, which ``custom_json.columns`` reads; None goes by
            the ending.

    Raises:
        ConfigError: ``FILE_NOT_FOUND``, ``FILE_FORMAT`` for another ending, ``FILE_CONTENT`` if it does not parse.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError("FILE_NOT_FOUND", f"there is no file '{path}'.")
    try:
        if data_format == CUSTOM:
            return _parsed(file)
        if file.name.lower().endswith(".df.json"):
            import pandas as pd

            return pd.DataFrame.from_records(_parsed(file))
        if file.suffix.lower() == ".json":
            return _json(_parsed(file))
        if file.suffix.lower() in IMAGES:
            return _image(file, pipeline)
        if file.suffix.lower() == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(file)
        if file.suffix.lower() == ".arrow":
            return _arrow(file)
    except UNREADABLE as error:
        raise ConfigError("FILE_CONTENT", f"'{path}' does not parse ({type(error).__name__}).") from error
    raise ConfigError(
        "FILE_FORMAT",
        f"'{file.name}': expected .arrow, .parquet, .json, .df.json or an image ({', '.join(IMAGES)}); "
        f"got '{file.suffix}'.",
    )


def _arrow(file: Path) -> pa.Table:
    """Read an Arrow file or stream, and look at all of it: offsets behind a buffer would be read from there."""
    with pa.memory_map(str(file)) as source:
        try:
            table = pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_stream(source).read_all()
    table.validate(full=True)
    return table


def _parsed(file: Path) -> Any:
    return json.loads(file.read_bytes(), object_pairs_hook=_without_twins)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twin = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ConfigError("FILE_CONTENT", f"an object of the file has two values for '{twin}'.")
    return found


def _json(content: Any) -> dict[str, Any]:
    if isinstance(content, dict):
        return content
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise ConfigError(
            "FILE_CONTENT",
            "the file holds neither an object of batches nor a list of records.",
            hint='{"x": [1.0, 2.0]} or [{"x": 1.0}, {"x": 2.0}]',
        )
    names = dict.fromkeys(name for record in content for name in record)
    return {name: [record.get(name) for record in content] for name in names}


def _image(file: Path, pipeline: Pipeline | None) -> dict[str, Any]:
    step = next((step for step in (pipeline.steps if pipeline else ()) if isinstance(step, ImageStep)), None)
    if step is None:
        raise ConfigError("FILE_FORMAT", f"'{file.name}' is an image, and the pipeline has no image step.")
    return {step.path_column: [str(file)], step.column: [file.read_bytes()]}
