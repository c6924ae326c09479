"""``lakemill infer``: a pipeline, from wherever it is, on one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill.config.base import Strict, read_yaml, validate
from lakemill.config.own_output import writing
from lakemill.config.predict import PipelineConfig, WrittenTrust
from lakemill.config.trust import NAMED
from lakemill.config.variables import expand
from lakemill.in_process.files import read_data
from lakemill.in_process.inference import Inference
from lakemill.in_process.inputs import given, to_table
from lakemill.in_process.json_values import plain
from lakemill.in_process.parallel import within
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import Resolved, resolve, resolve_uri
from lakemill_udfs.errors import ConfigError


def infer_file(
    pipeline: str,
    file: Path,
    *,
    dataset: Sequence[str] = ("*",),
    dataset_exclude: Sequence[str] = (),
    dataset_separator: str = ".",
    timeout: float | None = None,
    registry: str | None = None,
    data_format: str | None = None,
) -> Any:
    """Score a file and return the result in the file's own form, as ``Pipeline.infer``.

    Args:
        pipeline: YAML file, ``.onnx`` file, an MLflow model's folder or ``models:/...``.
        file: As ``infer_files.read_data`` takes it.
        dataset: What comes back.
        dataset_exclude: What is left out of that.
        dataset_separator: Between a part and a name.
        timeout: Seconds after which it is given up.
        registry: MLflow registry of its models.
        data_format: As ``Pipeline.infer`` takes it.

    Raises:
        LakemillError: as ``Pipeline.infer``.
    """

    def call() -> Any:
        resolved = find_pipeline(pipeline, registry)
        data = read_data(file, resolved.pipeline, data_format)
        return Inference(partial(make_plan, resolved, readable="all")).run(
            data, dataset, dataset_exclude, dataset_separator, data_format=data_format
        )

    return within(timeout, call)


class _Job(Strict):
    """What of a job's YAML, besides its pipeline, says which models are found."""

    registry: str | None = None
    trust: WrittenTrust = NAMED


def find_pipeline(pipeline: str, registry: str | None = None) -> Resolved:
    """Return the pipeline of a YAML file, an ``.onnx`` file, a folder or a ``models:/`` URI, with its models found."""
    if not pipeline.endswith((".yaml", ".yml")):
        return resolve_uri(pipeline, registry)
    raw = expand(read_yaml(pipeline))
    config = validate(PipelineConfig, raw.get("pipeline", raw), where=pipeline)
    job = validate(_Job, {key: raw[key] for key in _Job.model_fields if key in raw}, where=pipeline)
    registry = registry or job.registry
    if config.uri:
        return resolve_uri(config.uri, registry, job.trust)
    return resolve(config.declared(), registry, job.trust)


def as_json(result: Any, *, records: bool) -> str:
    """Return a result as JSON: one list for each column, or one object for each row, as custom JSON is already."""
    if isinstance(result, list):
        return json.dumps(plain(result))
    columns = {name: plain(column) for name, column in given(result).columns.items()}
    if not records:
        return json.dumps(columns)
    return json.dumps([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def write_result(result: Any, output: Path) -> None:
    """Write a result to an ``.arrow``, ``.parquet`` or ``.json`` file.

    Raises:
        ConfigError: ``FILE_FORMAT`` for another ending, ``FILE_NOT_WRITTEN``.
    """
    with writing(output):
        _write_result(result, output)


def _write_result(result: Any, output: Path) -> None:
    if output.suffix == ".json":
        output.write_text(as_json(result, records=output.name.endswith(".df.json")) + "\n", encoding="utf-8")
        return
    table = pa.Table.from_pylist(result) if isinstance(result, list) else to_table(result)
    if output.suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(table, output)
    elif output.suffix == ".arrow":
        with pa.ipc.new_file(str(output), table.schema) as file:
            file.write_table(table)
    else:
        raise ConfigError("FILE_FORMAT", f"'{output.name}': expected .arrow, .parquet or .json; got '{output.suffix}'.")
