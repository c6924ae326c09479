"""Logging a pipeline as one ordinary MLflow model: its models as artifacts, its steps as metadata, no pickle."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakemill.in_process.inputs import given
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.registry import mlflow_at
from lakemill.pipelines.resolving import LOGGED_KEY, Resolved, resolve
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.callables import must_travel
from lakemill_udfs.steps.declared import ImageStep, ModelStep, PythonStep, Step
from lakemill_udfs.tensors.spec import Kind, TensorSpec

MLFLOW_COLUMNS = {
    "bool": "boolean",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
    "uint8": "integer",
    "uint16": "integer",
    "uint32": "long",
    "float16": "float",
    "float32": "float",
    "float64": "double",
    "string": "string",
    "binary": "binary",
}


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
    steps: list[Step] = []
    artifacts: dict[str, str] = {}
    models = iter(resolved.models)
    for index, step in enumerate(resolved.pipeline.steps):
        if isinstance(step, ModelStep):
            artifacts[f"model_{index}"] = next(models).location
            steps.append(replace(step, uri=f"model_{index}"))
        else:
            steps.append(step)
    inside = replace(resolved.pipeline, steps=tuple(steps))
    code = importlib.resources.files("lakemill_udfs")
    with mlflow_at(registry) as mlflow, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # asks for type hints and examples; the signature says it all
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(code / "mlflow_model.py"),
            artifacts=artifacts,
            code_paths=[str(code), *_user_code(pipeline)],
            metadata={LOGGED_KEY: inside.to_dict()},
            model_config={LOGGED_KEY: inside.to_dict(), "models": _identities(resolved)},
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


def _user_code(pipeline: Pipeline) -> list[str]:
    from lakemill.engines.spark.shipping import user_module

    sources = {user_module(function.partition(":")[0]) for function in pipeline.functions}
    return sorted(str(source) for source in sources if source is not None)


def _identities(resolved: Resolved) -> list[dict[str, Any]]:
    """Return what a server needs to load the models without MLflow's registry: flavor, tensors and sha256."""
    return [
        {
            "flavor": model.flavor,
            "name": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "inputs": {spec.name: spec.to_dict() for spec in model.inputs},
            "outputs": {spec.name: spec.to_dict() for spec in model.outputs},
        }
        for model in resolved.models
    ]


def _requirements(resolved: Resolved) -> list[str]:
    runtimes = {"onnx": ["onnxruntime"], "pyfunc": ["mlflow"]}
    names = ["numpy", "pyarrow", "pandas", "pillow", "polars"]
    for model in resolved.models:
        names += runtimes[model.flavor]
        requirements = Path(model.location) / "requirements.txt"
        if model.flavor == "pyfunc" and requirements.is_file():
            names += [
                line.strip()
                for line in requirements.read_text(encoding="utf-8").splitlines()
                if line.strip() and not line.startswith("#")
            ]
    return [_pinned(name) for name in dict.fromkeys(names) if not name.startswith("mlflow=")]


def _pinned(requirement: str) -> str:
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
        elif isinstance(step, ModelStep):
            model = next(models)
            for spec in model.inputs:
                source = step.inputs.get(spec.name, spec.name)
                if source not in made and not (spec.name not in step.inputs and len(model.inputs) == 1 and made):
                    columns[source] = replace(spec, name=source)
            made |= {
                str(value) if isinstance(value := step.outputs.get(spec.name, spec.name), str) else spec.name
                for spec in model.outputs
            }
        elif isinstance(step, PythonStep):
            columns |= {
                source: TensorSpec(source, "float64")
                for source in step.inputs.values()
                if source not in made | set(columns)
            }
            made |= set(step.outputs)
        else:
            columns |= {
                source: TensorSpec(source, "float64", (None,))
                for source in step.sources.values()
                if source not in made | set(columns)
            }
            made |= {new for name in step.names if (new := step.outputs.get(name, name))}
    return columns


def _column(spec: TensorSpec, name: str | None = None) -> Any:
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array

    kind: Any = DataType[MLFLOW_COLUMNS.get(spec.dtype, "long")]
    for _ in spec.shape:
        kind = Array(kind)
    return ColSpec(kind, name or spec.name, required=not spec.nullable)
