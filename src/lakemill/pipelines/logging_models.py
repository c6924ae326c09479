"""Logging a pipeline as one ordinary MLflow model: its models as artifacts, its steps as metadata, no pickle."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import shutil
import tempfile
import warnings
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill.engines.packages import packages_of
from lakemill.in_process.inputs import given
from lakemill.pipelines.model_schemas import MLFLOW_COLUMNS
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.registry import mlflow_at
from lakemill.pipelines.resolving import LOGGED_KEY, Resolved, resolve
from lakemill_udfs.models.content import content_files
from lakemill_udfs.models.flavors import runtime
from lakemill_udfs.models.model import ModelFiles, ModelSpec
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.callables import must_travel
from lakemill_udfs.steps.declared import Check, FormatStep, ImageStep, ModelStep, PythonStep
from lakemill_udfs.steps.kinds import model_steps, with_models
from lakemill_udfs.tensors.spec import Kind, TensorSpec


def log_pipeline(
    pipeline: Pipeline,
    *,
    name: str = "pipeline",
    registered_model_name: str | None = None,
    alias: str | None = None,
    registry: str | None = None,
    input_example: Any = None,
) -> str:
    """Log a pipeline; see ``lakemill.Pipeline.log``.

    Returns:
        ``models:/name/version`` if it was registered, else the logged model's URI.

    Raises:
        ModelError: ``EXTRA_MISSING`` without MLflow, or one of its models is unknown.
        ConfigError: ``FUNCTION_LOCAL`` if a function has no import path.
    """
    for function in pipeline.functions:
        must_travel(function, "MLflow")
    resolved = resolve(pipeline, registry)
    code = importlib.resources.files("lakemill_udfs")
    inside = _inside(resolved).to_dict()
    with mlflow_at(registry) as mlflow, warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", UserWarning)  # asks for type hints and examples; the signature says it all
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(code / "logged_pipeline.py"),
            artifacts=_artifacts(resolved, stack),
            code_paths=[str(code), *_user_code(resolved, stack)],
            metadata={LOGGED_KEY: inside},
            model_config={LOGGED_KEY: inside, "models": _identities(resolved)},
            signature=_signature(resolved, input_example),
            input_example=input_example,
            pip_requirements=_requirements(resolved),
            registered_model_name=registered_model_name,
        )
        if registered_model_name is None:
            return str(info.model_uri)
        version = info.registered_model_version
        if alias is not None:
            mlflow.MlflowClient().set_registered_model_alias(registered_model_name, alias, version)
    return f"models:/{registered_model_name}/{version}"


def _inside(resolved: Resolved) -> Pipeline:
    """Return the pipeline as the artifact holds it: models named for their artifacts, functions for its own code."""
    names = iter(resolved.pipeline.artifacts)

    def within(part: Any) -> Any:
        return replace(part, sha256=None, code=None) if isinstance(part, PythonStep | Check) else part

    steps = [
        with_models(step, [replace(model, uri=next(names)) for model in model_steps(step)])
        if model_steps(step)
        else within(step)
        for step in resolved.pipeline.steps
    ]
    return replace(resolved.pipeline, steps=tuple(steps), checks=tuple(map(within, resolved.pipeline.checks)))


def _artifacts(resolved: Resolved, stack: ExitStack) -> dict[str, str]:
    """Return a file or folder for each model: what its sha256 covers, external weights included."""
    named = zip(resolved.pipeline.artifacts, resolved.models, strict=True)
    return {name: _artifact(model, stack) for name, model in named}


def _artifact(model: ModelSpec, stack: ExitStack) -> str:
    if not model.beside:
        return model.location
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
    for name, file in content_files(ModelFiles(Path(model.location), model.beside)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(file)  # MLflow copies what a link names
    return str(folder)


def _user_code(resolved: Resolved, stack: ExitStack) -> list[str]:
    """Return the user's modules as they are logged: Python files and declared data, copied apart from all else."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    packages = packages_of(resolved.pipeline, dict(resolved.code))
    for package in packages:
        for name, file in package.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    return sorted(str(folder / package.source.name) for package in packages)


def _identities(resolved: Resolved) -> list[dict[str, Any]]:
    """Return what a server needs to load the models without MLflow's registry: flavor, tensors and sha256."""
    return [
        {
            "flavor": model.flavor,
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "file": Path(model.location).name if model.beside else None,
            "beside": list(model.beside),
            "options": dict(model.options),
            "inputs": {spec.name: spec.to_dict() for spec in model.inputs},
            "outputs": {spec.name: spec.to_dict() for spec in model.outputs},
        }
        for model in resolved.models
    ]


def _requirements(resolved: Resolved) -> list[str]:
    names = ["numpy", "pyarrow", "pandas", "pillow", "polars"]
    for model in resolved.models:
        names += runtime(model.flavor).DISTRIBUTIONS
        requirements = Path(model.location) / "requirements.txt"
        if requirements.is_file():
            names += [
                line.strip()
                for line in requirements.read_text(encoding="utf-8").splitlines()
                if line.strip() and not line.startswith("#")
            ]
    return [pinned(name) for name in dict.fromkeys(names) if not name.startswith("mlflow=")]


def pinned(requirement: str) -> str:
    """Return a requirement with the version that is installed here, unless it says one or is not installed."""
    try:
        return (
            requirement
            if any(sign in requirement for sign in "=<>~! ")
            else f"{requirement}=={importlib.metadata.version(requirement)}"
        )
    except importlib.metadata.PackageNotFoundError:
        return requirement


def _signature(resolved: Resolved, example: Any) -> Any:
    """Return column specs: MLflow cannot mix them with tensor specs, and an image's bytes are a column.

    Inputs are left open where only an example could say what a column holds, and there is none.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    columns = input_columns(resolved)
    if example is not None:
        kinds = given(example).kinds
        columns = {name: kinds.get(name, spec) for name, spec in columns.items()}
    plan = make_plan(resolved, columns, readable="any")
    free = {name for step in resolved.pipeline.steps if isinstance(step, PythonStep) for name in step.inputs.values()}
    is_open = example is None and bool(free & set(columns))
    images = [step.column for step in resolved.pipeline.steps if isinstance(step, ImageStep)]
    inputs: list[Any] = [ColSpec(DataType.binary, name) for name in dict.fromkeys(images)]
    inputs += [_column(column.spec) for column in plan.wiring.columns]
    keys = [name for step in resolved.pipeline.steps for name in getattr(step, "key_columns", ())]
    inputs += [_column(kind) for name in dict.fromkeys(keys) if isinstance(kind := columns[name], TensorSpec)]
    outputs = [
        ColSpec(DataType.binary, f"out.{spec.name}")
        if pa.types.is_binary(spec.arrow_type())
        else _column(spec, f"out.{spec.name}")
        for spec in plan.wiring.outputs
    ]
    return ModelSignature(None if is_open else Schema(inputs), Schema(outputs))


def input_columns(resolved: Resolved) -> dict[str, Kind]:
    """Return the columns that a pipeline reads, as far as its steps say."""
    made: set[str] = set()
    columns: dict[str, Kind] = {}
    models = iter(resolved.models)
    for step in resolved.pipeline.steps:
        if isinstance(step, ImageStep):
            columns[step.column] = "binary"
            made.add(step.output)
        elif own := model_steps(step):
            given = frozenset(made)
            for name, one in zip(getattr(step, "members", [""]), own, strict=True):
                model = next(models)
                columns |= _declared_columns(one, model, resolved.pipeline, given)
                columns |= _model_columns(one, model, given)
                outputs = {
                    str(value) if isinstance(value := one.outputs.get(spec.name, spec.name), str) else spec.name
                    for spec in model.outputs
                }
                made |= outputs | {f"{name}_{output}" for output in outputs}
            columns |= {
                key: TensorSpec(key, "string") for key in getattr(step, "key_columns", ()) if key not in columns
            }
        elif isinstance(step, PythonStep):
            columns |= {
                source: TensorSpec(source, "float64")
                for source in step.inputs.values()
                if source not in made | set(columns)
            }
            made |= set(step.outputs)
        elif isinstance(step, FormatStep):
            columns |= {
                source: TensorSpec(source, "float64", (None,))
                for source in step.sources.values()
                if source not in made | set(columns)
            }
            made |= {new for name in step.names if (new := step.outputs.get(name, name))}
    return columns


def _declared_columns(step: ModelStep, model: ModelSpec, pipeline: Pipeline, made: Collection[str]) -> dict[str, Kind]:
    """Return the columns of a model that does not say its inputs, as far as the pipeline declares them."""
    known = {spec.name: spec for spec in pipeline.inputs}
    sources = () if model.inputs else step.inputs.values()
    return {source: known[source] for source in sources if source in known and source not in made}


def _model_columns(step: ModelStep, model: ModelSpec, made: Collection[str]) -> dict[str, Kind]:
    """Return the columns that feed a model, where earlier steps make ``made``."""
    columns: dict[str, Kind] = {}
    for spec in model.inputs:
        source = step.inputs.get(spec.name, spec.name)
        if source not in made and not (spec.name not in step.inputs and len(model.inputs) == 1 and made):
            columns[source] = replace(spec, name=source)
    return columns


def _column(spec: TensorSpec, name: str | None = None) -> Any:
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array

    kind: Any = DataType[MLFLOW_COLUMNS.get(spec.dtype, "long")]
    for _ in spec.shape:
        kind = Array(kind)
    return ColSpec(kind, name or spec.name, required=not spec.nullable)
