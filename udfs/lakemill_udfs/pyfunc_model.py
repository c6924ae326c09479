"""Any MLflow model, through its pyfunc flavour.

MLflow's own messages print the rows they are about; they are never passed on (``execution`` keeps an exception's type).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lakemill_udfs.errors import ModelError, RowError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import Arrays
from lakemill_udfs.tensors.casts import cast_numpy
from lakemill_udfs.tensors.spec import TensorSpec


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
        self._predict = foreign(self._model.predict)  # a model's own code may raise anything, with any text
        self.inputs, self.outputs, self._limited = inputs, outputs, _limiter(threads)
        schema = self._model.metadata.get_input_schema()
        self._is_tensor = schema is not None and schema.is_tensor_spec()
        self._is_unnamed = schema is not None and not schema.has_input_names()

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the model's result as tensors by name."""
        with self._limited():
            return self._to_arrays(self._predict(self._argument(inputs)), len(next(iter(inputs.values()))))

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
    if array.dtype == spec.numpy_dtype or not np.can_cast(array.dtype, spec.numpy_dtype, "same_kind"):
        return array
    try:
        return cast_numpy(array, spec)
    except (RowError, pa.ArrowInvalid):
        raise RowError("OUTPUT_CAST", f"{spec.name}: expected {spec.dtype}, got a value that does not fit.") from None


def _stacked(array: Any) -> Any:
    """Stack arrays and lists that stand in the cells of a column."""
    if array.dtype == object and len(array) and isinstance(array[0], list | tuple | np.ndarray):
        return np.stack([np.asarray(cell) for cell in array])
    return array


def _limiter(threads: int) -> Callable[[], AbstractContextManager[Any]]:
    """Return what limits the numerical libraries for one call: they are looked for once, which takes 2 ms."""
    if not threads:
        return nullcontext
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # comes with scikit-learn, untyped
    except ImportError:
        return nullcontext  # without scikit-learn there is no OpenMP pool of its own to limit
    return partial(ThreadpoolController().limit, limits=threads)
