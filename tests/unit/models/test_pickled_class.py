"""What a pickle holds is told from its first bytes, and threads share what is known to work without Python's lock."""

from __future__ import annotations

import pickle
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from lakemill_udfs.models.flavors import shares_threads
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.models.pickled_class import pickled_class

ROWS, TARGET = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


class Explodes:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


def shared(path: Path, **options: object) -> bool:
    return shares_threads(ModelSpec("m", str(path), "sklearn", "m", None, "0", **options))  # type: ignore[arg-type]  # a shorthand


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dump", [pickle.dump, cloudpickle.dump])
def test_threads_share_boosted_trees_and_nothing_that_wraps_them(tmp_path: Path, dump: object, protocol: int) -> None:
    trees = [HistGradientBoostingClassifier(max_iter=2), HistGradientBoostingRegressor(max_iter=2)]
    others = [LinearRegression(), make_pipeline(HistGradientBoostingRegressor(max_iter=2))]
    for estimator in (*trees, *others):
        with (tmp_path / "model.pkl").open("wb") as file:
            dump(estimator.fit(ROWS, TARGET), file, protocol=protocol)  # type: ignore[operator]  # one of two functions
        assert shared(tmp_path / "model.pkl") == (estimator in trees)


def test_an_isolated_model_is_shared_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(HistGradientBoostingRegressor()))
    assert shared(tmp_path / "model.pkl")
    assert not shared(tmp_path / "model.pkl", env="isolated")


def test_what_is_no_pickle_has_no_class_and_nothing_of_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in (b"", b"PK\x03\x04 a zip", b"\x80\x05", b"\x80\x05\x8c\xff"):
        path.write_bytes(content)
        assert pickled_class(path) is None
    path.write_bytes(pickle.dumps(Explodes()))
    assert pickled_class(path) == "builtins.exec"
    joblib.dump(HistGradientBoostingRegressor(), path, compress=3)
    assert pickled_class(path) is None
    assert pickled_class(tmp_path) is None
    assert pickled_class(tmp_path / "none") is None
    assert not shared(Path("s3://bucket/model.pkl"))
