"""What a model artifact can make a job do: its own code runs where the job names and trusts it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import skops.io
import yaml
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression

from lakemill import LakemillError, PredictConfig
from lakemill.config.trust import Trust
from lakemill.pipelines.resolving import resolve, resolve_uri
from lakemill.pipelines.trust import is_pinned
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import ModelStep
from tests.lake import onnx_classifier

PINNED = Trust(models="pinned")
OUTPUTS = {"y": {"dtype": "float64"}}


def folder(path: Path, *, loader: str = "mlflow.sklearn", **more: Any) -> Path:
    """Write a model folder whose pickle would run code, if it was loaded."""
    path.mkdir()
    flavor = {"loader_module": loader, "model_path": "model.pkl"}
    (path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavor}} | more), encoding="utf-8")
    (path / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    return path


def test_a_logged_pipeline_reads_no_file_of_this_machine(tmp_path: Path) -> None:
    """Its labels would come out as predictions, whatever file they were read from."""
    steps = [{"format": {"input": "x", "labels": "/etc/passwd"}}]
    path = folder(tmp_path / "model", metadata={"lakemill_pipeline": {"steps": steps}})
    with pytest.raises(LakemillError, match=r"^\[MODEL_PATH\]"):
        resolve_uri(str(path))


@pytest.mark.parametrize("loader", ["antigravity", "mlflowish.sklearn", "os", "..x"])
def test_a_model_is_not_loaded_by_any_module_that_it_names(tmp_path: Path, loader: str) -> None:
    """MLflow imports whatever an ``MLmodel`` file calls its loader."""
    path = folder(tmp_path / "model", loader=loader)
    step = ModelStep(str(path), outputs=OUTPUTS)
    with pytest.raises(LakemillError, match=r"^\[(MODEL_NOT_TRUSTED|MODEL_PATH)\]"):
        resolve(Pipeline((step,)))
    if loader.isidentifier():
        assert resolve(Pipeline((step,)), trust=Trust(modules=(loader,))).models
    (path / "code").mkdir()
    (path / "code" / "own.py").touch()
    (path / "MLmodel").write_text((path / "MLmodel").read_text().replace(loader, "own"))
    assert resolve(Pipeline((step,))).models[0].flavor == "pyfunc"


def test_pinned_code_is_named_by_version_or_digest(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    step = ModelStep(str(path), outputs=OUTPUTS)
    sha256 = resolve(Pipeline((step,))).models[0].sha256
    with pytest.raises(LakemillError, match=r"^\[MODEL_NOT_TRUSTED\].*trust is 'pinned'"):
        resolve(Pipeline((step,)), trust=PINNED)
    pinned = ModelStep(str(path), outputs=OUTPUTS, sha256=sha256)
    assert resolve(Pipeline((pinned,)), trust=PINNED).models
    (path / "model.pkl").write_bytes(b"another")
    with pytest.raises(LakemillError, match=r"^\[MODEL_CHANGED\]"):
        resolve(Pipeline((pinned,)), trust=PINNED)
    onnx = ModelStep(str(onnx_classifier(tmp_path / "model.onnx")))
    assert resolve(Pipeline((onnx,)), trust=PINNED).models[0].flavor == "onnx"
    assert not (Path.cwd() / "ran").exists()


def test_a_bare_pickle_needs_trust_of_the_jobs_own(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(LakemillError, match=r"^\[MODEL_NOT_TRUSTED\].*a pickle"):
        resolve(Pipeline((ModelStep(str(path), outputs=OUTPUTS),)))
    steps = [{"model": {"uri": "model_0", "trust": True, "outputs": OUTPUTS}}]
    whole = folder(tmp_path / "whole", metadata={"lakemill_pipeline": {"steps": steps}})
    path.rename(whole / "model_0.pkl")
    described = yaml.safe_load((whole / "MLmodel").read_text())
    described["flavors"]["python_function"]["artifacts"] = {"model_0": {"path": "model_0.pkl"}}
    (whole / "MLmodel").write_text(yaml.safe_dump(described))
    with pytest.raises(LakemillError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        resolve_uri(str(whole), trust=PINNED)
    assert not (Path.cwd() / "ran").exists()


class Own(BaseEstimator):
    """An estimator that skops does not know."""

    def fit(self, x: Any, y: Any = None) -> Own:
        return self


def test_a_skops_file_is_data_unless_it_brings_types(tmp_path: Path) -> None:
    skops.io.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), tmp_path / "known.skops")
    skops.io.dump(Own(), tmp_path / "own.skops")
    known = ModelStep(str(tmp_path / "known.skops"))
    assert resolve(Pipeline((known,)), trust=PINNED).models[0].flavor == "sklearn"
    for trust in (True, False):
        with pytest.raises(LakemillError, match=r"^\[MODEL_NOT_TRUSTED\]"):
            resolve(Pipeline((ModelStep(str(tmp_path / "own.skops"), outputs=OUTPUTS, trust=trust),)), trust=PINNED)


def test_a_logged_pipelines_own_digests_pin_nothing(tmp_path: Path) -> None:
    """A stranger's artifact holds the digest of a stranger's pickle."""
    inner = folder(tmp_path / "inner")
    sha256 = resolve(Pipeline((ModelStep(str(inner), outputs=OUTPUTS),))).models[0].sha256
    steps = [{"model": {"uri": "model_0", "sha256": sha256, "outputs": OUTPUTS}}]
    path = folder(tmp_path / "model", metadata={"lakemill_pipeline": {"steps": steps}})
    inner.rename(path / "model_0")
    described = yaml.safe_load((path / "MLmodel").read_text())
    described["flavors"]["python_function"]["artifacts"] = {"model_0": {"path": "model_0"}}
    (path / "MLmodel").write_text(yaml.safe_dump(described))
    assert resolve_uri(str(path)).models[0].sha256 == sha256
    with pytest.raises(LakemillError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        resolve_uri(str(path), trust=PINNED)


@pytest.mark.parametrize(
    ("uri", "pinned"),
    [
        ("models:/digits/3", True),
        ("models:/digits/3#model_1", True),
        (f"models:/m-{'0' * 32}", True),
        ("models:/digits@production", False),
        ("models:/digits/latest", False),
        ("models:/digits/Production", False),
        ("models:/digits@3/3", False),
        ("runs:/0123/model", False),
        ("lake/model", False),
    ],
)
def test_an_alias_is_not_trusted_where_trust_is_pinned(uri: str, pinned: bool) -> None:
    assert is_pinned(uri, None) is pinned
    assert is_pinned(uri, "0" * 64) is (pinned or "#" not in uri)


@pytest.mark.parametrize("written", ["pinned", {"models": "pinned"}])
def test_a_job_says_it_in_a_word(written: Any) -> None:
    job = PredictConfig.load(
        None, (), source={"table": "a/b"}, output={"table": "a/c"}, pipeline={"uri": "m"}, trust=written
    )
    assert job.trust == PINNED
