"""A pipeline as declared to one whose models are files with versions, inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lakemill.pipelines import registry
from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.models import ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import FormatStep, ModelStep, Step
from lakemill_udfs.tensors.spec import TensorSpec, declared

LOGGED_KEY = "lakemill_pipeline"
"""Key in an MLflow model's metadata under which a logged pipeline has its JSON form."""


@dataclass(frozen=True)
class Resolved:
    """A pipeline that can run.

    Args:
        pipeline: Each model step has its sha256; labels are read. Its ``version`` is the hash of all of it.
        models: One for each model step, in order; locations are on this machine.
        name: What to call it: its URI, or None if it was declared in place.
    """

    pipeline: Pipeline
    models: tuple[ModelSpec, ...]
    name: str | None = None


def resolve(pipeline: Pipeline, registry_uri: str | None = None) -> Resolved:
    """Resolve a pipeline's models and files.

    Raises:
        ModelError: a model is unknown, differs from its ``sha256``, or does not say what it needs.
        ConfigError: ``LABELS_NOT_FOUND`` if a format step's labels file is not there.
    """
    steps: list[Step] = []
    models: list[ModelSpec] = []
    for step in pipeline.steps:
        if isinstance(step, ModelStep):
            model = _resolve_model(step, _find(step.uri, registry_uri))
            models.append(model)
            steps.append(replace(step, sha256=model.sha256))
        else:
            steps.append(_with_labels(step) if isinstance(step, FormatStep) else step)
    return Resolved(Pipeline(tuple(steps), pipeline.checks, pipeline.outputs, pipeline.inputs), tuple(models))


def resolve_uri(uri: str, registry_uri: str | None = None) -> Resolved:
    """Resolve a URI: a pipeline that ``Pipeline.log`` made, or any other model as a pipeline of one step.

    Raises:
        ModelError: as ``registry.find``.
    """
    return replace(resolve(pipeline_of(uri, registry_uri), registry_uri), name=uri)


def pipeline_of(uri: str, registry_uri: str | None = None) -> Pipeline:
    """Return the pipeline that a URI stands for, its models by URIs that are found again.

    Raises:
        ModelError: as ``registry.find``.
    """
    found = registry.find(uri, registry_uri)
    content = registry.mlmodel(found.path) if found.path.is_dir() else {}
    logged = (content.get("metadata") or {}).get(LOGGED_KEY)
    return Pipeline((ModelStep(uri),)) if logged is None else _prefixed(Pipeline.from_dict(logged), uri)


def _prefixed(inside: Pipeline, uri: str) -> Pipeline:
    """Return a logged pipeline whose models are found inside it: ``models:/name/3#model_1``."""
    steps = [replace(step, uri=f"{uri}#{step.uri}") if isinstance(step, ModelStep) else step for step in inside.steps]
    return replace(inside, steps=tuple(steps))


def _find(uri: str, registry_uri: str | None) -> registry.FoundModel:
    """Find a model, or the part of a logged pipeline that the URI names after a ``#``."""
    inside = re.fullmatch(r"(.+)#(model_\d+)", uri)
    if inside is None:
        return registry.find(uri, registry_uri)
    whole, part = inside.groups()
    found = registry.find(whole, registry_uri)
    artifacts = registry.mlmodel(found.path)["flavors"]["python_function"]["artifacts"]
    inner = artifacts.get(part, {}).get("path", "..")
    path = found.path / inner
    if not path.resolve().is_relative_to(found.path.resolve()):
        raise ModelError("MODEL_NOT_FOUND", f"the logged pipeline '{whole}' has no model '{part}' in its own folder.")
    return registry.FoundModel(path, found.name, found.version, found.remote and f"{found.remote.rstrip('/')}/{inner}")


def _resolve_model(step: ModelStep, found: registry.FoundModel) -> ModelSpec:
    graph = found.path if found.path.is_file() else _onnx_file(found.path)
    if graph is not None and graph != found.path:
        found = replace_path(found, graph)
    sha256 = registry.content_sha256(found.path)
    if step.sha256 is not None and step.sha256 != sha256:
        raise ModelError(
            "MODEL_CHANGED",
            f"model '{step.uri}': expected sha256 {step.sha256[:12]}..., got {sha256[:12]}....",
            hint="take the sha256 out of the pipeline if the new content is wanted.",
        )
    if graph is not None:
        inputs, outputs = _graph_specs(graph, step.uri)
    else:
        inputs, outputs = registry.signature_specs(registry.mlmodel(found.path))
    return ModelSpec(
        uri=step.uri,
        location=found.remote or str(found.path),
        flavor="pyfunc" if graph is None else "onnx",
        name=found.name,
        version=found.version,
        sha256=sha256,
        inputs=inputs,
        outputs=_with_declared(outputs, step.outputs),
    )


def _graph_specs(graph: Path, uri: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    from lakemill_udfs.onnx_model import OnnxModel

    try:
        model = OnnxModel(graph, device="cpu")
    except ModelError:
        raise
    except Exception as error:  # onnxruntime has an exception class for each way in which a file can be bad
        raise ModelError("MODEL_LOAD", f"ONNX Runtime does not load '{uri}' ({type(error).__name__}).") from error
    return model.inputs, model.outputs


def replace_path(found: registry.FoundModel, file: Path) -> registry.FoundModel:
    """Return the same model at another file of its folder."""
    remote = found.remote and f"{found.remote.rstrip('/')}/{file.relative_to(found.path).as_posix()}"
    return replace(found, path=file, remote=remote)


def _onnx_file(folder: Path) -> Path | None:
    """Return the graph of an MLflow model of the onnx flavour, which is faster to run directly than through pyfunc."""
    flavor = registry.mlmodel(folder).get("flavors", {}).get("onnx")
    file = folder / flavor["data"] if flavor and "data" in flavor else None
    return file if file is not None and file.is_file() else None


def _with_declared(
    outputs: tuple[TensorSpec, ...], given: Mapping[str, str | Mapping[str, Any]]
) -> tuple[TensorSpec, ...]:
    written = {name: declared(name, raw) for name, raw in given.items() if not isinstance(raw, str)}
    if written and len(outputs) == 1 and outputs[0].name == "output":
        return tuple(written.values())  # an unnamed output gets its declared name
    known = {spec.name: spec for spec in outputs} | written
    return tuple(known.values())


def _with_labels(step: FormatStep) -> FormatStep:
    if not isinstance(step.labels, str):
        return step
    try:
        lines = Path(step.labels).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(
            "LABELS_NOT_FOUND", f"there is no labels file '{step.labels}'.", hint="a text file with one label a line."
        ) from error
    return replace(step, labels=tuple(line for line in lines if line.strip()))
