"""Any MLflow model, through its pyfunc flavour.

MLflow's own messages print the rows they are about; they are never passed on (``execution`` keeps an exception's type).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import pickles, plain_runtime
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.pyfunc_results import to_arrays
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.models.threads import limiter

RELEASES_LOCK = False

DISTRIBUTIONS: tuple[str, ...] = ("mlflow",)

OPTIONS = ("params", "model_config")
"""``params`` of the signature, the same for every row; ``model_config``, for models from code."""

native, write, log = plain_runtime.native, plain_runtime.write, plain_runtime.log


def options(described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given.

    Raises:
        ModelError: ``MODEL_OPTION`` for a parameter that the signature does not have: MLflow drops it with a warning.
    """
    raw = (described.get("signature") or {}).get("params")
    known = [str(one["name"]) for one in json.loads(raw or "[]")]
    unknown = sorted(set(given.get("params") or {}) - set(known))
    if unknown:
        raise ModelError(
            "MODEL_OPTION",
            f"the model's signature has no parameter '{unknown[0]}'; it has: {', '.join(known) or 'none'}.",
        )
    return dict(given)


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return the folder of any MLflow model."""
    return ModelFiles(path) if path.is_dir() and "flavors" in described else None


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return true: what MLflow's loaders run cannot be seen."""
    return True


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return the inputs and outputs of the signature; nothing is loaded."""
    return signature_specs(described)


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> PyfuncModel:
    """Load a model through MLflow."""
    return PyfuncModel(path, spec.inputs, spec.outputs, threads=threads, options=spec.options)


def cause(error: Exception, path: Path) -> str:
    """Return why a model does not load, as far as pickles say it."""
    return pickles.cause(error)


class PyfuncModel:
    """One loaded pyfunc model.

    Args:
        path: The MLflow model's folder.
        inputs: Its inputs, from its signature; empty without one.
        outputs: Its outputs, from its signature or as declared.
        threads: Threads of the numerical libraries inside one call; 0 leaves their default.
        options: ``params`` and ``model_config``.

    Raises:
        ModelError: ``EXTRA_MISSING`` without MLflow.
    """

    def __init__(
        self,
        path: Path,
        inputs: Specs,
        outputs: Specs,
        *,
        threads: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import mlflow.pyfunc
        except ImportError as error:
            raise missing_extra("mlflow", "mlflow") from error
        given = options or {}
        self._model = mlflow.pyfunc.load_model(str(path), model_config=given.get("model_config"))
        self._params = {"params": given["params"]} if given.get("params") else {}
        self._predict = foreign(self._model.predict)  # a model's own code may raise anything, with any text
        self.inputs, self.outputs, self._limited = inputs, outputs, limiter(threads)
        schema = self._model.metadata.get_input_schema()
        self._is_tensor = schema is not None and schema.is_tensor_spec()
        self._is_unnamed = schema is not None and not schema.has_input_names()
        self._dtypes = {spec.name: spec.dtype for spec in inputs}
        self._labels: dict[str, Any] = {}
        if schema is not None and not self._is_unnamed:
            self._labels = {
                str(label): label for label in schema.input_names()
            }  # of a DataFrame without names: numbers

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the model's result as tensors by name."""
        with self._limited():
            return to_arrays(self._predict(self._argument(inputs), **self._params), self.outputs)

    def _argument(self, inputs: Arrays) -> Any:
        if self._is_tensor:
            return next(iter(inputs.values())) if self._is_unnamed else inputs
        import pandas as pd

        columns = {
            self._labels.get(name, name): pd.to_datetime(array)
            if self._dtypes.get(name) == "datetime"
            else array
            if array.ndim == 1
            else list(array)
            for name, array in inputs.items()
        }
        frame = pd.DataFrame(columns)
        return frame.set_axis(range(len(columns)), axis="columns") if self._is_unnamed else frame
