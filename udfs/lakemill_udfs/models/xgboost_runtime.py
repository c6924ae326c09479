"""XGBoost: its json and ubj files, pickles of its estimators and boosters, and MLflow models of the xgboost flavour."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lakemill_udfs.errors import ModelError, missing_extra
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import pickles, plain_runtime
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.models.tabular import features, is_numeric, method_of, probed, results, to_array, to_frame

RELEASES_LOCK = True

DISTRIBUTIONS: tuple[str, ...] = ("xgboost",)

OPTIONS = ("method",)
"""``method``: ``predict`` (the default), ``predict_proba`` of a classifier, or ``margin``, before the last function."""

HEADS = (b'{"learner":', b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner")
"""How its json and its ubj files begin."""

ESTIMATORS = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}
"""The class of each kind of estimator that a file says it is of; a file of a booster says nothing."""


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a file of XGBoost's, a pickle of one of its classes, or the file of an MLflow model without own code."""
    if path.is_file():
        is_own = path.suffix in (".json", ".ubj", ".xgb") and _head(path).startswith(HEADS)
        is_pickle = path.suffix in pickles.SUFFIXES and pickles.first_class(path).startswith("xgboost.")
        return ModelFiles(path) if is_own or is_pickle else None
    flavors = described.get("flavors") or {}
    flavor = flavors.get("xgboost", {})
    file = path / str(flavor.get("data", ""))
    is_theirs = str(flavor.get("model_class", "")).startswith("xgboost.")
    return ModelFiles(file) if is_theirs and not flavor.get("code") and file.is_file() else None


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64).replace(b" ", b"").replace(b"\n", b"")


def options(described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given; an MLflow model says whether it is an estimator or a booster."""
    known = (described.get("flavors") or {}).get("xgboost", {}).get("model_class")
    return {"method": "predict"} | ({"class": str(known)} if known else {}) | dict(given)


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return whether the file is a pickle."""
    return path.suffix in pickles.SUFFIXES


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return what the signature says, else the features of the trees and what they give for one made-up row."""
    if described.get("signature"):
        inputs, outputs = signature_specs(described)
        if options["method"] == "predict":
            return inputs, outputs
        model = XgboostModel(_read(path, options), inputs, (), options["method"], path.stem)
        return inputs, probed(model.predict, inputs, _categories(model.booster))
    native = _read(path, options)
    inputs = booster_inputs(_booster(native))
    model = XgboostModel(native, inputs, (), options["method"], path.stem)
    return inputs, probed(model.predict, inputs, _categories(model.booster))


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> XgboostModel:
    """Load an estimator or a booster."""
    native, method = _read(path, spec.options), spec.options.get("method", "predict")
    return XgboostModel(native, spec.inputs, spec.outputs, method, spec.name, threads=threads, device=device)


def native(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the estimator or booster."""
    return _read(path, options)


def write(value: Any, folder: Path) -> Path | None:
    """Write an estimator or a booster."""
    if plain_runtime.class_root(value) != "xgboost":
        return None
    value.save_model(folder / "model.ubj")
    return folder / "model.ubj"


def log(value: Any, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Log trees through MLflow's xgboost flavor; plain MLflow calls ``predict``, whatever the method is."""
    import mlflow.xgboost

    return mlflow.xgboost.log_model(value, model_format="ubj", **arguments)


def cause(error: Exception, path: Path) -> str:
    """Return why a file does not load."""
    return pickles.cause(error) or ("it is damaged or cut short" if type(error).__name__ == "XGBoostError" else "")


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise missing_extra("xgboost", "xgboost") from error
    return xgboost


def _read(path: Path, options: Mapping[str, Any]) -> Any:
    """Return an estimator, or a booster where the file is of one."""
    xgboost = _xgboost()
    if path.suffix in pickles.SUFFIXES:
        return pickles.read(path)
    booster = xgboost.Booster(model_file=str(path))
    named = str(options.get("class", "")).rpartition(".")[2]
    if not named:
        kind = json.loads(booster.attributes().get("scikit_learn", "{}")).get("_estimator_type")
        named = ESTIMATORS.get(kind, "Booster")
    if named == "Booster":
        return booster
    estimator = getattr(xgboost, named)()
    estimator.load_model(str(path))
    return estimator


def _booster(native: Any) -> Any:
    return native.get_booster() if hasattr(native, "get_booster") else native


def booster_inputs(booster: Any) -> Specs:
    """Return the inputs of trained trees: features by name, or one array ``inputs``; NaN and null are missing."""
    names = booster.feature_names
    if names is None or [f"f{at}" for at in range(len(names))] == list(names):
        return features(None, booster.num_features(), {}, nullable=True)
    texts = {name: "string" for name, value in _categories(booster).items() if isinstance(value, str)}
    return features(names, len(names), texts, nullable=True)


def _categories(booster: Any) -> dict[str, Any]:
    """Return one category of each feature of categories that the trees know by its values."""
    if "c" not in (booster.feature_types or ()):
        return {}
    found = booster.get_categories(export_to_arrow=True).to_arrow()
    return {name: values[0].as_py() for name, values in found or () if values is not None and len(values)}


class XgboostModel:
    """Trained trees, of an estimator or a booster.

    Args:
        native: The estimator or booster.
        inputs: Columns by name, or one array.
        outputs: What it gives; empty if nothing says it.
        method: ``predict``, ``predict_proba`` or ``margin``.
        name: Of the model, for messages.
        threads: Threads inside one call; 0 leaves XGBoost's default, all cores.
        device: ``auto`` and ``cpu`` run on the CPU; ``cuda``, ``cuda:1``.

    Raises:
        ModelError: ``MODEL_OPTION`` if it has no such method, ``DEVICE_MISSING`` if ``cuda`` is asked for and this
            build has none.
    """

    def __init__(
        self,
        native: Any,
        inputs: Specs,
        outputs: Specs,
        method: str,
        name: str,
        *,
        threads: int = 0,
        device: str = "auto",
    ) -> None:
        self.inputs, self.outputs, self._method, self.booster = inputs, outputs, method, _booster(native)
        self._is_tree = json.loads(self.booster.save_config())["learner"]["gradient_booster"]["name"] != "gblinear"
        self._categories = {
            feature: kind == "c"
            for feature, kind in zip(self.booster.feature_names or (), self.booster.feature_types or (), strict=False)
        }
        settings = ({"nthread": threads} if threads else {}) | _device(device)
        self.booster.set_param(settings)
        if native is not self.booster and settings:
            native.set_params(**{"n_jobs" if key == "nthread" else key: value for key, value in settings.items()})
        self._call = foreign(self._method_of(native, name))

    def _method_of(self, native: Any, name: str) -> Any:
        if native is self.booster:
            if self._method not in ("predict", "margin"):
                method_of(None, self._method, name)
            return self._trees
        return self._trees if self._method == "margin" else method_of(native, self._method, name)

    def _trees(self, data: Any) -> Any:
        """Return what the trees give for numbers as they lie; a linear booster takes them through its own matrix."""
        kind = "margin" if self._method == "margin" else "value"
        if self._is_tree:
            return self.booster.inplace_predict(data, predict_type=kind, validate_features=False)
        return self.booster.predict(_xgboost().DMatrix(data), output_margin=kind == "margin")

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the trees' result as tensors by name."""
        return results(self._call(self._argument(inputs)), self._method, self.outputs)

    def _argument(self, inputs: Arrays) -> Any:
        if self._is_tree and not any(self._categories.values()) and is_numeric(inputs):
            names = self.booster.feature_names or ()
            in_order = {name: inputs[name] for name in names} if set(names) == set(inputs) else inputs
            return to_array(in_order)
        if self.booster.feature_names is None:
            return to_array(inputs)
        frame = to_frame(inputs, self.booster.feature_names, self.inputs)
        texts = [name for name in frame.columns if self._categories.get(name)]
        return frame.astype(dict.fromkeys(texts, "category"))


def _device(device: str) -> dict[str, str]:
    if not device.startswith("cuda"):
        return {}
    if not _xgboost().build_info().get("USE_CUDA"):
        raise ModelError(
            "DEVICE_MISSING",
            f"engine.device is {device}, but this xgboost has no CUDA.",
            hint="pip install xgboost in place of xgboost-cpu",
        )
    return {"device": device}
