"""Any MLflow model, through its pyfunc flavour.

MLflow's own messages print the rows they are about; they are never passed on (``execution`` keeps an exception's type).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from lakemill_udfs.errors import ModelError, RowError, missing_extra
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.tensors.spec import TensorSpec

DISTRIBUTIONS: tuple[str, ...] = ("mlflow",)


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return the folder of any MLflow model."""
    return ModelFiles(path) if path.is_dir() and described else None


def specs(path: Path, described: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return the inputs and outputs of the signature; nothing is loaded."""
    return signature_specs(described)


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> PyfuncModel:
    """Load a model through MLflow."""
    return PyfuncModel(path, spec.inputs, spec.outputs, threads=threads)


def cause(error: Exception, path: Path) -> str:
    """Return why a model does not load, as far as pickles say it; other texts may hold anything."""
    if isinstance(error, FileNotFoundError):
        return f"its file '{Path(str(error.filename)).name}' is missing"
    missing = re.search(r"Can't get attribute '([\w.]+)' on <module '([\w.]+)'", str(error))
    if isinstance(error, AttributeError) and missing:
        return f"its pickle needs {missing[2]}.{missing[1]}, which is not there (another version, or another class)"
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "its pickle is damaged or cut short"
    if isinstance(error, UserWarning | ValueError) and "version" in str(error).lower():
        return "it was saved by another version of its framework (see its requirements.txt)"
    return ""


class PyfuncModel:
    """One loaded pyfunc model.

    Args:
        path: The MLflow model's folder.
        inputs: Its inputs, from its signature; empty without one.
        outputs: Its outputs, from its signature or as declared.
        threads: Threads of the numerical libraries inside one call; 0 leaves their default.

    Raises:
        ModelError: ``EXTRA_MISSING`` without MLflow.
    """

    def __init__(
        self, path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], *, threads: int = 0
    ) -> None:
        try:
            import mlflow.pyfunc
        except ImportError as error:
            raise missing_extra("mlflow", "mlflow") from error
        self._model = mlflow.pyfunc.load_model(str(path))
        self.inputs, self.outputs, self._threads = inputs, outputs, threads
        schema = self._model.metadata.get_input_schema()
        self._is_tensor = schema is not None and schema.is_tensor_spec()
        self._is_unnamed = schema is not None and not schema.has_input_names()

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the model's result as tensors by name."""
        with _limited(self._threads):
            return self._to_arrays(self._model.predict(self._argument(inputs)), len(next(iter(inputs.values()))))

    def _argument(self, inputs: Arrays) -> Any:
        if self._is_tensor:
            return next(iter(inputs.values())) if self._is_unnamed else inputs
        import pandas as pd

        columns = {name: array if array.ndim == 1 else list(array) for name, array in inputs.items()}
        return pd.DataFrame(columns)

    def _to_arrays(self, result: Any, rows: int) -> Arrays:
        if isinstance(result, Mapping):
            named = {str(name): np.asarray(value) for name, value in result.items()}
        elif hasattr(result, "columns"):  # a pandas DataFrame
            named = {str(name): _stacked(result[name].to_numpy()) for name in result.columns}
        else:
            named = {self.outputs[0].name if self.outputs else "output": _stacked(np.asarray(result))}
        if len(named) == 1 and len(self.outputs) == 1:
            named = {self.outputs[0].name: next(iter(named.values()))}
        if not self.outputs:  # only the dry run's probe calls a model that does not say them
            return named
        missing = [spec.name for spec in self.outputs if spec.name not in named]
        if missing:
            raise ModelError(
                "MODEL_OUTPUT_MISSING", f"the model's result has no '{missing[0]}'; it has: {', '.join(named)}."
            )
        return {spec.name: _typed(named[spec.name], spec) for spec in self.outputs}


def _typed(array: Any, spec: TensorSpec) -> Any:
    """Give strings and the safe casts that MLflow's signature leaves open; anything else is judged by the caller."""
    if spec.dtype == "string":
        return array.astype(object)
    if array.dtype == object:
        raise RowError("MODEL_OUTPUT_RAGGED", f"{spec.name}: rows of the result differ in shape or type.")
    return (
        array
        if array.dtype == spec.numpy_dtype or not np.can_cast(array.dtype, spec.numpy_dtype, "same_kind")
        else array.astype(spec.numpy_dtype)
    )


def _stacked(array: Any) -> Any:
    """Stack arrays and lists that stand in the cells of a column."""
    if array.dtype == object and len(array) and isinstance(array[0], list | tuple | np.ndarray):
        return np.stack([np.asarray(cell) for cell in array])
    return array


def _limited(threads: int) -> AbstractContextManager[Any]:
    if not threads:
        return nullcontext()
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn, untyped
    except ImportError:
        return nullcontext()  # without scikit-learn there is no OpenMP pool of its own to limit
    limit: AbstractContextManager[Any] = threadpool_limits(limits=threads)
    return limit
