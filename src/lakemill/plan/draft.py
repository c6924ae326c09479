"""A predict job's YAML file, drafted from a table's columns and a model's inputs: filled in and commented."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from lakemill.engines import table_names
from lakemill.engines.choice import open_engine
from lakemill.engines.engine import opened
from lakemill.engines.table_names import job_name
from lakemill.pipelines.registry import MLFLOW_SCHEMES, find
from lakemill.pipelines.resolving import Resolved, resolve, resolve_uri
from lakemill_udfs.errors import ConfigError, LakemillError
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import FormatStep, ImageStep, ModelStep
from lakemill_udfs.steps.kinds import Step
from lakemill_udfs.tensors.spec import TensorSpec, arrow_tensors
from lakemill_udfs.wiring import wire

PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
"""A text that YAML reads as a text without quotes."""

KEYS = re.compile(r"(^|_)(id|key|uuid|guid)$", re.IGNORECASE)
CHANNELS: dict[int, Literal["L", "RGB", "RGBA"]] = {1: "L", 3: "RGB", 4: "RGBA"}
FREE_SIDE = 224
"""Pixels of an image's side where the model takes any: what most image models were trained with."""


@dataclass(frozen=True)
class Draft:
    """What goes into the file.

    Args:
        source: Table to score.
        columns: Its columns.
        model: URI of the model.
        output: Table of predictions.
        registry: MLflow registry; None leaves MLflow's own settings.
    """

    source: str
    columns: pa.Schema
    model: str
    output: str
    registry: str | None = None

    def yaml(self, file: str = "job.yaml") -> str:
        """Return the file's text.

        Args:
            file: Its name, for the commands in its head.

        Raises:
            ModelError: the model is unknown, or nothing in the table feeds one of its inputs.
            ConfigError: ``KEY_MISSING`` if no column can tell rows apart.
        """
        resolved = self._fitting()
        registry = f"registry: {_text(self.registry)}" if self.registry else "# registry: ${MLFLOW_TRACKING_URI}"
        key, others = self._key(), [name for name in self._light() if name != self._key()]
        columns = "columns: [label]" if "label" in others else "# columns: []"
        return f"""\
# A predict job, drafted by lakemill init. Every key and its default: docs/configuration.md
# Look first:  lakemill plan --config {file}
#              lakemill predict --config {file} --limit 5
# Then:        lakemill predict --config {file}
name: {_text(job_name(self.output))}
{registry}
source:
  table: {_text(self.source)}
  # where: "..."                     # any SQL predicate on the source; without it all rows
  key: [{_text(key)}]                # tells rows apart: never null, never twice
  {columns}                 # carried into the predictions; there are: {", ".join(others) or "no others"}
  # changes: upsert                  # where rows are changed or deleted, not only added
pipeline:
{_pipeline(resolved, self.model)}
  # checks:                          # flag rows, never drop them
  #   - {{name: unsure, expr: "{_check(resolved)}"}}
output:
  table: {_text(self.output)}
  dataset: [time, out, anomaly]      # also: in
# quarantine: {{max_ratio: 0.1}}       # more rows with errors stop the run; nothing of the batch is written
mode: incremental                    # what is new since the last run; or full, where, missing
engine: {{batch_rows: auto, batch_bytes: 64MiB, device: auto}}
"""

    def _light(self) -> list[str]:
        nested = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_nested, pa.types.is_null)
        return [field.name for field in self.columns if not any(is_kind(field.type) for is_kind in nested)]

    def _key(self) -> str:
        light = self._light()
        for found in ([name for name in light if name == "path"], [name for name in light if KEYS.search(name)]):
            if found:
                return found[0]
        exact = [
            name
            for name in light
            if pa.types.is_integer(self.columns.field(name).type) or pa.types.is_string(self.columns.field(name).type)
        ]
        if not exact:
            raise ConfigError(
                "KEY_MISSING", f"no column of '{self.source}' can tell rows apart.", hint="add one, for example an id."
            )
        return exact[0]

    def _fitting(self) -> Resolved:
        """Return a pipeline of the model whose inputs the table feeds: as it is, or behind an image step."""
        resolved = resolve_uri(self.model, self.registry)
        problems = _problems(resolved, self.columns)
        if not problems:
            return resolved
        images = [field.name for field in self.columns if pa.types.is_binary(field.type)]
        if len(resolved.models) == 1 and len(resolved.models[0].inputs) == 1 and images:
            column = "content" if "content" in images else images[0]
            steps = _image_steps(resolved.models[0], column, self.model)
            behind = resolve(Pipeline(steps), self.registry) if steps else resolved
            if not _problems(behind, self.columns):
                return behind
        raise problems[0]


def draft_job(source: str, model: str, output: str, *, registry: str | None = None, file: str = "job.yaml") -> str:
    """Return the text of a predict job's YAML file for a table and a model; nothing is scored.

    Args:
        source: Delta table to score.
        model: URI of the model.
        output: Delta table of predictions.
        registry: MLflow registry; None leaves MLflow's own settings.
        file: The file's name, for the commands in its head.

    Raises:
        TableError: ``TABLE_NOT_FOUND``.
        ModelError: as ``Draft.yaml``.
        ConfigError: as ``Draft.yaml``.
    """
    table_names.check_path(source)
    if not model.startswith(MLFLOW_SCHEMES):
        find(model)
    columns = opened(open_engine(None, "lakemill init"), source).schema
    return Draft(source, columns, model, output, registry).yaml(file)


def _problems(resolved: Resolved, columns: pa.Schema) -> list[LakemillError]:
    problems: list[LakemillError] = []
    wire(resolved.pipeline, resolved.models, arrow_tensors(columns), problems)
    return problems


def _image_steps(model: ModelSpec, column: str, uri: str) -> tuple[Step, ...]:
    """Return an image step that makes the model's input of an encoded image, the model, a format step for scores."""
    image = _image_step(model.inputs[0], column)
    if image is None:
        return ()
    scores = model.outputs[0] if len(model.outputs) == 1 else None
    is_classes = scores is not None and len(scores.shape) == 1 and scores.dtype.startswith("float")
    shaped = (FormatStep(scores.name, softmax="logit" in scores.name.lower()),) if scores and is_classes else ()
    return image, ModelStep(uri), *shaped


def _image_step(tensor: TensorSpec, column: str) -> ImageStep | None:
    shape: list[Any] = [size or FREE_SIDE for size in tensor.shape]
    if tensor.dtype not in ("uint8", "float16", "float32", "float64"):
        return None
    about: dict[str, Any] = {"column": column, "dtype": tensor.dtype, "output": tensor.name}
    if len(shape) == 3 and shape[0] in CHANNELS:
        return ImageStep(mode=CHANNELS[shape[0]], size=(shape[1], shape[2]), layout="NCHW", **about)
    if len(shape) == 3 and shape[2] in CHANNELS:
        return ImageStep(mode=CHANNELS[shape[2]], size=(shape[0], shape[1]), layout="NHWC", **about)
    side = round(shape[0] ** 0.5) if len(shape) == 1 else 0
    return ImageStep(mode="L", size=(side, side), layout="flat", **about) if side and side**2 == shape[0] else None


def _pipeline(resolved: Resolved, model: str) -> str:
    if len(resolved.pipeline.steps) == 1 or resolved.name is not None:
        return f"  uri: {_text(model)}"
    image, _, *shaped = resolved.pipeline.steps
    assert isinstance(image, ImageStep)  # noqa: S101 -- _image_steps puts one there
    height, width = image.size or (0, 0)
    lines = [
        "  steps:",
        f"    - image: {{column: {_text(image.column)}, mode: {image.mode}, size: [{height}, {width}], "
        f"layout: {image.layout}, dtype: {image.dtype}, output: {_text(image.output)}}}",
        "      # also mean: [...] and std: [...], if the model was trained with them; resize_shorter and crop for size",
        f"    - model: {{uri: {_text(model)}}}",
    ]
    for step in shaped:
        assert isinstance(step, FormatStep)  # noqa: S101 -- as above
        softmax = ", softmax: true" if step.softmax else ""
        lines.append(f"    - format: {{input: {_text(step.input)}{softmax}}}       # also labels: [...] and top_k: 5")
    return "\n".join(lines)


def _check(resolved: Resolved) -> str:
    if any(isinstance(step, FormatStep) for step in resolved.pipeline.steps):
        return "out.probability < 0.5"
    numbers = [
        spec.name
        for model in resolved.models[-1:]
        for spec in model.outputs
        if spec.shape == () and spec.dtype.startswith("float")
    ]
    return f"out.{(numbers or ['score'])[0]} < 0.5"


def _text(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
