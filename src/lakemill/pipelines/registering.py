"""``log_model``: from a file, a folder or an object in memory to a registered MLflow model that was run once."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lakemill.in_process.inputs import given
from lakemill.pipelines.converting import Certificate, converted, quantized
from lakemill.pipelines.logging_models import log_pipeline, pinned
from lakemill.pipelines.model_schemas import as_json, as_specs, check_declared, signature
from lakemill.pipelines.registry import SHA256_TAG, mlflow_at
from lakemill.pipelines.resolving import resolve, resolve_uri
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models import flavors
from lakemill_udfs.models.cache import ModelCache
from lakemill_udfs.models.model import Arrays, ModelSpec, Specs
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep
from lakemill_udfs.tensors.cells import read_column
from lakemill_udfs.tensors.column_inputs import input_column
from lakemill_udfs.tensors.spec import OBJECTS, TensorSpec

PROBE_ROWS = 2


@dataclass(frozen=True)
class LoggedModel:
    """A model that was logged.

    Args:
        uri: ``models:/name/version``.
        version: Of the registered model.
        runtime: Which runtime runs it.
        sha256: Of what runs.
        inputs: Its inputs, as text.
        outputs: Its outputs, as text.
        alias: What the version is also called.
        certificate: How a converted model agrees with the original.
    """

    uri: str
    version: str
    runtime: str
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    alias: str | None = None
    certificate: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line."""
        alias = f", alias {self.alias}" if self.alias else ""
        return (
            f"{self.uri}{alias}: {', '.join(self.inputs)} -> {', '.join(self.outputs)}, on {self.runtime}, "
            f"sha256 {self.sha256[:12]}"
        )


def log_model(
    model: Any,
    *,
    name: str,
    framework: str = "auto",
    input_schema: Any = None,
    output_schema: Any = None,
    input_example: Any = None,
    options: Mapping[str, Any] | None = None,
    requirements: Sequence[str] = (),
    alias: str | None = None,
    registry: str | None = None,
    trust: bool = False,
    convert: str | None = None,
    quantize: str | None = None,
    tolerance: float = 1e-4,
) -> LoggedModel:
    """Look at a model, run it once and register it as an ordinary MLflow model.

    Args:
        model: A file or folder that a runtime takes, an MLflow model's folder, or in memory an estimator, a booster, an
            ONNX graph, a scripted or exported network, a Keras model, a pipeline of transformers or diffusers.
        name: What it is registered as.
        framework: Which runtime takes it; ``auto`` finds out.
        input_schema: As ``pyarrow.Schema``, ``TensorSpec``s or an MLflow signature; needed only where the model itself
            does not say its inputs.
        output_schema: Likewise; compared with what the model gave.
        input_example: Some rows of yours, as ``Pipeline.infer`` takes them; a made-up row is run without.
        options: Of the runtime: ``{"method": "predict_proba"}``.
        requirements: Packages that the model needs besides its framework.
        alias: Alias that the new version gets, for example ``production``.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.
        trust: Whether a file that is code itself, as a pickle, may be loaded.
        convert: ``onnx``: register it as an ONNX graph, if that agrees with it on ``input_example``: scikit-learn,
            XGBoost, LightGBM, PyTorch and Keras.
        quantize: ``int8``: with whole numbers of 8 bits for weights, under the same condition.
        tolerance: By how much, absolutely and relatively, converted numbers may differ.

    Raises:
        ModelError: ``MODEL_SCHEMA`` if what is declared is not what the model has, ``MODEL_PROBE`` if it does not take
            the rows, ``CONVERT_DISAGREES``, and as ``Pipeline.infer`` finds a model.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        is_object = not isinstance(model, str | Path)
        path = str(flavors.written(model, folder)[1] if is_object else model)
        step = ModelStep(
            path, runtime=None if framework == "auto" else framework, options=options or {}, trust=trust or is_object
        )
        spec = _checked(step, input_schema, output_schema, input_example)
        certificate: Certificate | None = None
        if convert is not None or quantize is not None:
            rows = _rows(spec, input_example) if input_example is not None else None
            if convert is not None:
                spec, certificate = converted(spec, rows, folder, target=convert, tolerance=tolerance)
            if quantize is not None:
                spec, certificate = quantized(spec, rows, folder, kind=quantize, tolerance=tolerance)
        return _registered(
            spec, name, requirements=requirements, alias=alias, registry=registry, certificate=certificate
        )


def _checked(step: ModelStep, input_schema: Any, output_schema: Any, example: Any) -> ModelSpec:
    """Return a model that ran once, with its inputs and outputs as declared or as they were found."""
    spec = resolve(Pipeline((step,))).models[0]
    inputs, outputs = as_specs(input_schema), as_specs(output_schema, "outputs")
    check_declared(spec.name, "inputs", inputs, spec.inputs)
    spec = replace(spec, inputs=inputs or spec.inputs)
    if not spec.inputs and example is not None:
        kinds = given(example).kinds
        spec = replace(spec, inputs=tuple(kind for kind in kinds.values() if isinstance(kind, TensorSpec)))
    if not spec.inputs:
        raise ModelError(
            "MODEL_SCHEMA",
            f"model '{spec.name}' does not say its inputs.",
            hint="input_schema=pa.schema([...]), or input_example with some rows.",
        )
    rows = _rows(spec, example)
    seen = _probed(spec, rows)
    if len(seen) == len(outputs) == 1 and _is_renamed(spec, outputs, rows):
        seen = (replace(seen[0], name=outputs[0].name),)
    check_declared(spec.name, "outputs", outputs, seen)
    return replace(spec, outputs=outputs or seen)


def _is_renamed(spec: ModelSpec, outputs: Specs, rows: Arrays) -> bool:
    """Return whether the framework's one result has no name of its own: it is called as declared then."""
    model = ModelCache().get(replace(spec, outputs=outputs), threads=0, device="cpu")[0].model
    with suppress(Exception):  # it does not take these rows, or gives something else, which is said next
        return outputs[0].name in model.predict(rows)
    return False


def _rows(spec: ModelSpec, example: Any) -> Arrays:
    """Return some rows as the model takes them: the user's, or made up."""
    if example is None:
        return {one.name: _made_up(one) for one in spec.inputs if not one.nullable}
    data = given(example)
    arrays: Arrays = {}
    for one in spec.inputs:
        if one.name not in data.columns and one.nullable:
            continue
        if one.name not in data.columns:
            raise ModelError(
                "MODEL_INPUT_MISSING",
                f"model '{spec.name}' needs input '{one.name}'; the example has: {', '.join(data.columns)}.",
            )
        column = input_column(one.name, one, data.kinds, None, who=f"model '{spec.name}'")
        values, failures = read_column(data.columns[one.name], column.spec, column.stored_dtype)
        first = next((failure for failure in failures or () if failure is not None), None)
        if first is not None:
            raise first
        arrays[one.name] = values
    return arrays


def _made_up(spec: TensorSpec) -> np.ndarray[Any, Any]:
    value: Any = "" if spec.dtype == "string" else b"" if spec.dtype == "binary" else 0
    return np.full(
        (PROBE_ROWS, *(size or 1 for size in spec.shape)), value, object if spec.dtype in OBJECTS else spec.numpy_dtype
    )


def _probed(spec: ModelSpec, rows: Arrays) -> Specs:
    """Return what a model gives."""
    model = ModelCache().get(replace(spec, outputs=()), threads=0, device="cpu")[0].model
    try:
        results = model.predict(rows)
    except Exception as error:  # a model may raise anything, with row data in its text
        if spec.outputs:
            return spec.outputs  # it refuses a made-up row, and says its outputs itself
        raise ModelError(
            "MODEL_PROBE",
            f"model '{spec.name}' raised {type(error).__name__} for the rows it was tried with.",
            hint="input_example= some rows that it takes.",
        ) from None
    count = len(next(iter(rows.values())))
    wrong = [name for name, array in results.items() if np.ndim(array) < 1 or len(array) != count]
    if wrong:
        raise ModelError(
            "OUTPUT_ROWS",
            f"{wrong[0]}: {count} rows went in, {np.shape(results[wrong[0]])[:1] or 'one value'} came out.",
        )
    found = {name: _spec_of(name, np.asarray(array)) for name, array in results.items()}
    free = {one.name: one for one in spec.outputs}  # what the format says of free sizes is more than one batch shows
    return tuple(
        free[name] if name in free and free[name].dtype == one.dtype and free[name].accepts(_sizes(one)) else one
        for name, one in found.items()
    )


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 0 for size in spec.shape)


def _spec_of(name: str, array: np.ndarray[Any, Any]) -> TensorSpec:
    if array.dtype.kind in "OU":
        first = next((value for value in array.flat if value is not None), "")
        return TensorSpec(name, "binary" if isinstance(first, bytes) else "string", array.shape[1:])
    return TensorSpec(name, array.dtype.name, array.shape[1:])


def _registered(
    spec: ModelSpec,
    name: str,
    *,
    requirements: Sequence[str],
    alias: str | None,
    registry: str | None,
    certificate: Certificate | None,
) -> LoggedModel:
    runtime = flavors.runtime(spec.flavor)
    native = runtime.native(Path(spec.location), spec.options)
    noted = {"inputs": as_json(spec.inputs), "outputs": as_json(spec.outputs), "options": dict(spec.options)}
    if certificate is not None:
        noted["certificate"] = certificate.to_dict()
    with mlflow_at(registry) as mlflow, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # asks for examples; the signature says it all
        arguments = {
            "name": name,
            "signature": signature(spec.inputs, spec.outputs),
            "pip_requirements": [pinned(one) for one in (*runtime.DISTRIBUTIONS, *requirements)],
            "metadata": {flavors.NOTED_KEY: noted},
            "registered_model_name": name,
        }
        info = None if native is None else runtime.log(native, spec.options, arguments)
    if info is None:
        return _as_pipeline(spec, name, alias, registry)
    version = str(info.registered_model_version)
    found = resolve_uri(f"models:/{name}/{version}", registry).models[0]
    with mlflow_at(registry) as mlflow:
        client = mlflow.MlflowClient()
        client.set_model_version_tag(name, version, SHA256_TAG, found.sha256)
        if alias is not None:
            client.set_registered_model_alias(name, alias, version)
    return LoggedModel(
        f"models:/{name}/{version}",
        version,
        found.flavor,
        found.sha256,
        tuple(map(str, found.inputs)),
        tuple(map(str, found.outputs)),
        alias,
        noted.get("certificate", {}),
    )


def _as_pipeline(spec: ModelSpec, name: str, alias: str | None, registry: str | None) -> LoggedModel:
    """Log a model for which MLflow has no flavor: as a pipeline of one step, which plain MLflow loads too."""
    step = ModelStep(
        spec.location,
        inputs={one.name: one.name for one in spec.inputs},
        outputs={one.name: one.to_dict() for one in spec.outputs},
        options=spec.options,
        trust=True,
    )
    pipeline = Pipeline((step,), inputs=spec.inputs)
    uri = log_pipeline(pipeline, name=name, registered_model_name=name, alias=alias, registry=registry)
    found = resolve_uri(uri, registry).models[0]
    texts = tuple(map(str, spec.inputs)), tuple(map(str, spec.outputs))
    return LoggedModel(uri, uri.rpartition("/")[2], found.flavor, found.sha256, *texts, alias)
