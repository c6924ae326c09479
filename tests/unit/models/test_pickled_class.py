"""What a pickle holds is told from its first bytes, and threads share what is known to work without Python's lock."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import threadpoolctl
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from lakemill_udfs.models.flavors import shares_threads
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.models.pickles import first_class
from lakemill_udfs.models.threads import limiter

ROWS, TARGET = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


class Explodes:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


def shared(path: Path, **options: object) -> bool:
    return shares_threads(ModelSpec("m", str(path), "sklearn", "m", None, "0", **options))  # type: ignore[arg-type]  # a shorthand


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dump", [pickle.dump, cloudpickle.dump])
def test_threads_share_what_works_without_the_lock_and_nothing_that_wraps_it(
    tmp_path: Path, dump: object, protocol: int
) -> None:
    known = [HistGradientBoostingClassifier(max_iter=2), HistGradientBoostingRegressor(max_iter=2), LinearRegression()]
    others = [GradientBoostingRegressor(n_estimators=2), make_pipeline(HistGradientBoostingRegressor(max_iter=2))]
    for estimator in (*known, *others):
        with (tmp_path / "model.pkl").open("wb") as file:
            dump(estimator.fit(ROWS, TARGET), file, protocol=protocol)  # type: ignore[operator]  # one of two functions
        assert shared(tmp_path / "model.pkl") == (estimator in known)


def test_a_skops_file_says_its_class_too(tmp_path: Path) -> None:
    for estimator, is_shared in ((LinearRegression(), True), (GradientBoostingRegressor(n_estimators=2), False)):
        skops.io.dump(estimator.fit(ROWS, TARGET), tmp_path / "model.skops")
        assert shared(tmp_path / "model.skops") == is_shared
    (tmp_path / "model.skops").write_bytes(b"PK no zip")
    assert first_class(tmp_path / "model.skops") == ""


def test_threads_that_share_a_model_leave_the_linear_algebra_as_it_was() -> None:
    """Each limits it while it works: what the last one takes back is what the first one found."""
    before = algebra_threads()
    first, second = limiter(1)(), limiter(1)()
    with contextlib.ExitStack() as left_first:
        left_first.enter_context(first)
        second.__enter__()
        assert set(algebra_threads()) == {1}
    assert set(algebra_threads()) == {1}, "the second still works"
    second.__exit__(None, None, None)
    assert algebra_threads() == before


def algebra_threads() -> list[int]:
    return [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]


def test_an_isolated_model_is_shared_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(HistGradientBoostingRegressor()))
    assert shared(tmp_path / "model.pkl")
    assert not shared(tmp_path / "model.pkl", env="isolated")


def test_what_is_no_pickle_has_no_class_and_nothing_of_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in (b"", b"PK\x03\x04 a zip", b"\x80\x05", b"\x80\x05\x8c\xff"):
        path.write_bytes(content)
        assert first_class(path) == ""
    path.write_bytes(pickle.dumps(Explodes()))
    assert first_class(path) == "builtins.exec"
    joblib.dump(HistGradientBoostingRegressor(), path, compress=3)
    assert first_class(path) == ""
    assert first_class(tmp_path) == ""
    assert first_class(tmp_path / "none") == ""
    assert not shared(Path("s3://bucket/model.pkl"))
