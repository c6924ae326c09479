"""scikit-learn's estimators and pipelines, and LightGBM's, from pickles, joblib's and skops' files, without MLflow."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lakemill_udfs.errors import missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import pickles
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.models.tabular import ARRAY, features, is_numeric, method_of, probed, results, to_array, to_frame
from lakemill_udfs.models.threads import limiter
from lakemill_udfs.tensors.spec import TensorSpec

RELEASES_LOCK = False

DISTRIBUTIONS: tuple[str, ...] = ("scikit-learn", "skops", "cloudpickle")

WITHOUT_LOCK = (
    "lightgbm.",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.linear_model.",
    "sklearn.neighbors.",
    "sklearn.neural_network.",
    "sklearn.svm.",
)
"""Estimators that two threads run at 1.8 to 2 times the speed of one, and linear ones, which take no time (20 columns:
docs/decisions/0014-small-rows.md)."""

WRAPPED = "lightgbm.sklearn."
"""Classes of MLflow's lightgbm flavor that have scikit-learn's methods."""

OPTIONS = ("method",)
"""``method``: what is called: ``predict`` (the default), ``predict_proba``, ``decision_function``, ``transform`` ..."""


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a pickle or a skops file, or that of an MLflow model of estimators without code of its own."""
    if path.is_file():
        return ModelFiles(path) if path.suffix in (*pickles.SUFFIXES, ".skops") else None
    flavors = described.get("flavors") or {}
    flavor, named = flavors.get("sklearn", {}), flavors.get("sklearn", {}).get("pickled_model")
    if str(flavors.get("lightgbm", {}).get("model_class", "")).startswith(WRAPPED):
        flavor, file = flavors["lightgbm"], str(flavors["lightgbm"].get("data"))
        named = file if file.endswith((*pickles.SUFFIXES, ".skops")) else None  # else LightGBM's own text
    has_code = flavor.get("code") or flavors.get("python_function", {}).get("code")
    return ModelFiles(path / named) if named and not has_code and (path / named).is_file() else None


def releases_lock(path: Path) -> bool:
    """Return whether an estimator is of a class that is known to work without Python's lock; it is not loaded."""
    return pickles.first_class(path).startswith(WITHOUT_LOCK)


def options(described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given, over the method that an MLflow model was logged with."""
    return {"method": _logged_method(described)} | dict(given)


def _logged_method(described: Mapping[str, Any]) -> str:
    return str((described.get("flavors") or {}).get("python_function", {}).get("predict_fn", "predict"))


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return whether reading the file runs code: a pickle does, skops' format only with types of its own."""
    if path.suffix != ".skops":
        return True
    return bool(_skops().get_untrusted_types(file=path))


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return what the signature says, else what the fitted estimator knows and gives for one made-up row."""
    signed = signature_specs(described) if described.get("signature") else None
    if signed is not None and options["method"] == _logged_method(described):
        return signed
    if described and runs_code(path, described):  # planning runs no code of an artifact
        return signed[0] if signed is not None else (), ()
    estimator = _read(path)
    inputs = signed[0] if signed is not None else estimator_inputs(estimator)
    model = SklearnModel(estimator, inputs, (), options["method"], path.stem)
    return inputs, probed(model.predict, inputs, _categories(estimator))


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> SklearnModel:
    """Load an estimator."""
    method = spec.options.get("method", "predict")
    return SklearnModel(_read(path), spec.inputs, spec.outputs, method, spec.name, threads=threads)


def native(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the estimator."""
    return _read(path)


def write(value: Any, folder: Path) -> Path | None:
    """Write an estimator: as skops where every type of it is known to be safe, else as a pickle."""
    if not all(hasattr(value, name) for name in ("get_params", "fit")):
        return None
    skops = _skops()
    skops.dump(value, folder / "model.skops")
    if not skops.get_untrusted_types(file=folder / "model.skops"):
        return folder / "model.skops"
    (folder / "model.pkl").write_bytes(pickle.dumps(value))
    return folder / "model.pkl"


def log(value: Any, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Log an estimator through MLflow's sklearn flavor, which calls the same method."""
    import mlflow.sklearn

    with tempfile.TemporaryDirectory() as folder:
        is_safe = (write(value, Path(folder)) or Path()).suffix == ".skops"
    form = "skops" if is_safe else "cloudpickle"
    return mlflow.sklearn.log_model(value, pyfunc_predict_fn=options["method"], serialization_format=form, **arguments)


def cause(error: Exception, path: Path) -> str:
    """Return why a file does not load, as far as pickles say it."""
    return pickles.cause(error)


def _read(path: Path) -> Any:
    try:
        import sklearn  # noqa: F401 -- a pickle's own error would name a module deep inside
    except ImportError as error:
        raise missing_extra("scikit-learn", "sklearn") from error
    if path.suffix != ".skops":
        return pickles.read(path)
    skops = _skops()
    return skops.load(path, trusted=skops.get_untrusted_types(file=path))


def _skops() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise missing_extra("skops", "sklearn") from error
    return skops.io


class SklearnModel:
    """One fitted estimator.

    Args:
        estimator: With the method.
        inputs: Columns by name, or one array.
        outputs: What it gives; empty if nothing says it.
        method: Which method is called.
        name: Of the model, for messages.
        threads: Threads inside one call; 0 leaves the estimator's own.

    Raises:
        ModelError: ``MODEL_OPTION`` if the estimator has no such method.
    """

    def __init__(
        self, estimator: Any, inputs: Specs, outputs: Specs, method: str, name: str, *, threads: int = 0
    ) -> None:
        self.inputs, self.outputs, self._method = inputs, outputs, method
        self._call = foreign(method_of(estimator, method, name))
        self._names = _names_of(estimator)
        self._limited = limiter(threads)
        if threads and hasattr(estimator, "get_params"):
            pools = [key for key in estimator.get_params() if key == "n_jobs" or key.endswith("__n_jobs")]
            estimator.set_params(**dict.fromkeys(pools, threads))

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the method's result as tensors by name."""
        with self._limited():
            return results(self._call(self._argument(inputs)), self._method, self.outputs)

    def _argument(self, inputs: Arrays) -> Any:
        if (
            self._names is None
            and len(inputs) == 1
            and len(self.inputs) == 1
            and self.inputs[0].name in (ARRAY, "input")
        ):
            return next(iter(inputs.values()))
        if self._names is None and is_numeric(inputs):
            return to_array(inputs)
        return to_frame(inputs, self._names, self.inputs)


def _names_of(estimator: Any) -> Any:
    """Return the columns an estimator was trained on; None of an array's, for which LightGBM makes up names."""
    names = getattr(estimator, "feature_names_in_", None)
    is_made_up = names is not None and all(str(name) == f"Column_{at}" for at, name in enumerate(names))
    return None if is_made_up else names


def estimator_inputs(estimator: Any) -> Specs:
    """Return the inputs of a fitted estimator: its features by name, one array ``inputs``, or one text a row."""
    names, count = getattr(estimator, "feature_names_in_", None), getattr(estimator, "n_features_in_", None)
    if names is None and count is None:
        return (TensorSpec(ARRAY, "string"),)  # of a vectorizer
    texts = {name: "string" for name, value in _categories(estimator).items() if isinstance(value, str)}
    return features(names, int(count or 0), texts, nullable=_takes_nulls(estimator))


def _takes_nulls(estimator: Any) -> bool:
    from sklearn.utils import get_tags

    if hasattr(estimator, "steps") or hasattr(estimator, "transformers_"):
        return True  # one of its parts may fill them in; if none does, that row fails
    try:
        return bool(get_tags(estimator).input_tags.allow_nan)
    except (AttributeError, TypeError, ValueError):  # of a class that only looks like an estimator
        return False


def _categories(estimator: Any) -> dict[str, Any]:
    """Return one category of each column that an encoder reads, by the column's name."""
    found: dict[str, Any] = {}
    for encoder, names in _encoders(estimator, getattr(estimator, "feature_names_in_", None)):
        for name, categories in zip(names, encoder.categories_, strict=False):
            values = [value for value in np.asarray(categories).tolist() if value is not None and value == value]  # noqa: PLR0124 -- NaN is not equal to itself
            if values:
                found[str(name)] = values[0]
    return found


def _encoders(estimator: Any, names: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the fitted encoders inside an estimator, each with the columns it reads."""
    if hasattr(estimator, "categories_") and names is not None:
        yield estimator, names
    for _, inner, columns in getattr(estimator, "transformers_", ()):
        by_name = [columns] if isinstance(columns, str) else columns
        if not isinstance(inner, str) and isinstance(by_name, list | np.ndarray) and len(by_name):
            chosen = by_name if isinstance(by_name[0], str) else None if names is None else np.asarray(names)[by_name]
            yield from _encoders(inner, chosen)
    steps = getattr(estimator, "steps", ())
    for _, step in steps[: _first_that_encodes(steps)]:
        yield from _encoders(step, names)


def _first_that_encodes(steps: Any) -> int:
    """Return how many steps still see the columns as they were: up to the first that is no imputer."""
    for at, (_, step) in enumerate(steps):
        if type(step).__name__ != "SimpleImputer" and step != "passthrough":
            return at + 1
    return len(steps)
