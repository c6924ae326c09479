"""Files that ``infer`` reads: Arrow, Parquet, JSON, pandas' JSON records and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ImageStep

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")


def read_data(path: str | Path, pipeline: Pipeline) -> Any:
    """Return a file's content as ``infer`` takes it.

    Args:
        path: ``.arrow`` (file or stream) and ``.parquet`` give a table, ``.df.json`` (pandas' records) a DataFrame,
            ``.json`` (a dict of batches, or a list of records) a dict, an image a dict of one row.
        pipeline: Its image step names the columns of an image.

    Raises:
        ConfigError: ``FILE_NOT_FOUND``, ``FILE_FORMAT`` for another ending, ``FILE_CONTENT`` if it does not parse.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError("FILE_NOT_FOUND", f"there is no file '{path}'.")
    try:
        if file.name.lower().endswith(".df.json"):
            import pandas as pd

            return pd.DataFrame.from_records(json.loads(file.read_bytes()))
        if file.suffix.lower() == ".json":
            return _json(json.loads(file.read_bytes()))
        if file.suffix.lower() in IMAGES:
            return _image(file, pipeline)
        if file.suffix.lower() == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(file)
        if file.suffix.lower() == ".arrow":
            return _arrow(file)
    except (ValueError, TypeError) as error:  # of json, pandas and pyarrow
        raise ConfigError("FILE_CONTENT", f"'{path}' does not parse ({type(error).__name__}).") from error
    raise ConfigError(
        "FILE_FORMAT",
        f"'{file.name}': expected .arrow, .parquet, .json, .df.json or an image ({', '.join(IMAGES)}); "
        f"got '{file.suffix}'.",
    )


def _arrow(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _json(content: Any) -> dict[str, Any]:
    if isinstance(content, dict):
        return content
    names = dict.fromkeys(name for record in content for name in record)
    return {name: [record.get(name) for record in content] for name in names}


def _image(file: Path, pipeline: Pipeline) -> dict[str, Any]:
    step = next((step for step in pipeline.steps if isinstance(step, ImageStep)), None)
    if step is None:
        raise ConfigError("FILE_FORMAT", f"'{file.name}' is an image, and the pipeline has no image step.")
    return {step.path_column: [str(file)], step.column: [file.read_bytes()]}
