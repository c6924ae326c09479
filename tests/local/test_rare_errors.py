"""Errors that only rare things raise: each says what stands in the way, by its code."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from lakemill import (
    CascadeStep,
    EnsembleStep,
    FormatStep,
    LakemillError,
    ModelStep,
    Pipeline,
    PredictConfig,
    PythonStep,
    RunError,
    ShadowStep,
    SplitStep,
    predict_table,
)
from lakemill.config.transform import TransformConfig
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.local.commit_errors import coded, conflict
from lakemill.engines.local.tables import open_table
from lakemill.engines.spark.errors import spark_failure
from lakemill.engines.spark.following import _Slices
from lakemill.engines.table_names import location
from lakemill.pipelines import converting
from lakemill.pipelines.registering import log_model
from lakemill.pipelines.registry import alias_version, find
from lakemill.pipelines.resolving import resolve
from lakemill.plan.job import plan_job
from lakemill.predict.promotion import compare
from lakemill.transform.sample import sample
from lakemill_udfs.cascade import agreement
from lakemill_udfs.failures import row_error
from lakemill_udfs.models.pyfunc_results import to_arrays
from lakemill_udfs.tensors.spec import TensorSpec
from tests.lake import add_rows, factor_model, onnx_classifier

Y = {"y": {"dtype": "float64"}}
PIXELS = {"pixels": {"dtype": "float32", "shape": [64]}}


def job(lake: Path, function: str = "twice", **values: Any) -> PredictConfig:
    """Return a job from ``<lake>/source`` through a function to ``<lake>/predictions``."""
    step = {"function": f"tests.local.job_functions:{function}", "inputs": {"x": "x"}, "outputs": Y}
    usual: dict[str, Any] = {
        "source__table": f"{lake}/source",
        "source__key": ["id"],
        "pipeline__steps": [{"python": step}],
        "output__table": f"{lake}/predictions",
        "engine__name": "local",
    }
    return PredictConfig.load(**usual | values)


def code(call: Callable[[], Any]) -> str:
    """Return the code of the error that a call ends with."""
    with pytest.raises(LakemillError) as raised:
        call()
    return raised.value.code


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(onnx_classifier(tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: SplitStep("a.onnx", {"control": "b.onnx"}), "SPLIT_NAMES"),
        (lambda: SplitStep("a.onnx", {"b": "b.onnx"}, weights=[1, 2]), "SPLIT_STEP"),
        (lambda: ShadowStep("a.onnx", {"champion": "b.onnx"}), "SHADOW_NAMES"),
        (lambda: ShadowStep("a.onnx", ["b.onnx"]), "SHADOW_STEP"),
        (lambda: EnsembleStep({"a b": "a.onnx", "b": "b.onnx"}), "ENSEMBLE_NAMES"),
        (lambda: EnsembleStep({"a": "a.onnx"}), "ENSEMBLE_NAMES"),
        (lambda: EnsembleStep(["a.onnx"]), "ENSEMBLE_STEP"),
    ],
)
def test_steps_of_several_models_are_refused_when_they_are_made(make: Callable[[], Any], expected: str) -> None:
    assert code(make) == expected


def test_what_a_challenger_gives_feeds_no_step_of_several_models(model: str) -> None:
    outputs = {"logits": "scores"}
    shadow = ShadowStep(ModelStep(model, outputs=outputs), {"newer": ModelStep(model, outputs=outputs)})
    feeds = PythonStep(
        "tests.local.job_functions:same_pixels", {"pixels": {"dtype": "float32", "shape": [64]}}, {"x": "scores"}
    )
    ensemble = EnsembleStep({"a": model, "b": model})
    rows = {"pixels": np.zeros((2, 64), "float32")}
    assert code(lambda: Pipeline((shadow, feeds, ensemble)).infer(rows)) == "SHADOW_STEPS"


def test_a_cascade_needs_a_score_rows_and_answers_that_can_agree(tmp_path: Path, model: str) -> None:
    rows = {"pixels": np.zeros((4, 64), "float32")}
    unknown = Pipeline((CascadeStep(model, model, "auto", score="nosuch"),))
    assert code(lambda: unknown.calibrate(rows)) == "CASCADE_SCORE"
    fails = PythonStep(
        "tests.local.job_functions:fails", {"pixels": {"dtype": "float32", "shape": [64]}}, {"x": "pixels"}
    )
    assert code(lambda: Pipeline((fails, CascadeStep(model, model, "auto"))).calibrate(rows)) == "CASCADE_SAMPLE"
    numbers = {"y": np.zeros(2, "float32")}
    assert code(lambda: agreement(numbers, numbers, [TensorSpec("y", "float32")])) == "CASCADE_AGREEMENT"


def test_a_checkpoint_without_a_batchs_offsets_is_damaged(tmp_path: Path) -> None:
    assert code(lambda: Checkpoint(str(tmp_path)).offset(3)) == "CHECKPOINT_DAMAGED"


def test_a_commit_that_cannot_be_written_names_the_table_and_keeps_the_text(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
    snapshot = open_table(str(tmp_path / "t"))
    assert snapshot is not None
    with pytest.raises(RunError, match=r"^\[COMMIT_FAILED\] .*/t' \(DeltaError\)") as raised, coded(snapshot):
        raise DeltaError("of a row")
    kept = Path(str(raised.value.hint).split("'")[2])
    assert ("of a row" in str(raised.value), kept.read_text()) == (False, "of a row")
    kept.unlink()


def test_a_commit_that_others_are_always_faster_than_says_how_often(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
    snapshot = open_table(str(tmp_path / "t"))
    assert snapshot is not None
    error = conflict(snapshot, 5)
    assert (error.code, "in all 5 attempts" in error.message) == ("COMMIT_CONFLICT", True)


def test_what_is_not_converted_is_said(tmp_path: Path, model: str) -> None:
    (spec,) = resolve(Pipeline((ModelStep(model),))).models
    rows = {"pixels": np.zeros((2, 64), "float32")}
    assert code(lambda: converting.converted(spec, rows, tmp_path, target="tensorrt")) == "CONVERT_TARGET"
    assert code(lambda: converting.quantized(spec, rows, tmp_path, kind="int4")) == "CONVERT_TARGET"
    assert code(lambda: converting.converted(spec, rows, tmp_path)) == "CONVERT_FAILED"


def test_equal_contents_are_told_by_one_column(tmp_path: Path) -> None:
    add_rows(tmp_path / "source", {"id": [1], "x": ["a"], "z": ["b"]})
    both = {"function": "tests.local.job_functions:length", "inputs": {"x": "x", "z": "z"}, "outputs": Y}
    config = job(tmp_path, deduplicate="content", pipeline__steps=[{"python": both}])
    assert code(lambda: predict_table(config)) == "DEDUPLICATE_COLUMNS"


def test_the_models_of_keys_are_not_compared(tmp_path: Path) -> None:
    for key in ("a", "b"):
        factor_model(tmp_path / f"store-{key}.onnx", 2)
    add_rows(tmp_path / "source", {"id": [1, 2], "store": ["a", "b"], "sales": pa.array([1, 2], pa.float32())})
    keyed = {"models": {"by": "store", "uri": f"{tmp_path}/store-{{store}}.onnx"}}
    config = job(tmp_path, pipeline__steps=[keyed])
    assert code(lambda: compare(config)) == "EVIDENCE_KEYED"


def test_a_jvm_without_memory_says_which_setting() -> None:
    from pyspark.errors import PySparkException

    error = spark_failure(PySparkException("java.lang.OutOfMemoryError: Java heap space"))
    assert (error.code, "spark.driver.memory" in str(error.hint)) == ("HEAP_TOO_SMALL", True)


def test_a_batch_after_the_end_of_a_stream_is_left() -> None:
    slices = _Slices(None, lambda piece: None, lambda session: None)  # type: ignore[arg-type]  # nothing is followed
    slices.is_ended = True
    assert code(lambda: slices(None, 7)) == "STREAM_ENDED"  # type: ignore[arg-type]  # nor read


def test_labels_that_are_not_there_are_named(tmp_path: Path, model: str) -> None:
    pipeline = Pipeline((ModelStep(model), FormatStep("logits", labels=f"{tmp_path}/labels.txt")))
    assert code(pipeline.resolve) == "LABELS_NOT_FOUND"


def test_a_result_that_lacks_what_was_declared_is_named() -> None:
    specs = (TensorSpec("a", "float64"), TensorSpec("b", "float64", (2,)))
    assert code(lambda: to_arrays({"a": [1.0]}, specs)) == "MODEL_OUTPUT_MISSING"
    assert code(lambda: to_arrays({"a": [1.0, 1.0], "b": [["x"], [1.0, 2.0]]}, specs)) == "MODEL_OUTPUT_RAGGED"
    narrow = (TensorSpec("a", "float32"),)
    assert code(lambda: to_arrays({"a": np.array([1e300])}, narrow)) == "OUTPUT_CAST"


def test_a_step_outside_the_model_that_raises_is_one_row_s_error() -> None:
    assert row_error(ValueError("of a row"), "format").code == "STEP_FAILED"


def test_a_probe_without_a_result_says_which_step(tmp_path: Path) -> None:
    add_rows(tmp_path / "source", {"id": [1], "x": [1.0]})
    config = job(tmp_path, "fails")
    assert "PROBE_EMPTY" in str(plan_job(config, probe=True).problems)


def test_a_registry_that_refuses_is_told_from_one_without_the_model() -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"error_code": "PERMISSION_DENIED", "message": "of nobody"}'
            self.send_response(403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        assert code(lambda: find("models:/a/1", f"http://127.0.0.1:{http.server_port}")) == "REGISTRY_REFUSED"
        http.shutdown()


def test_a_sample_is_of_rows_and_not_of_groups(tmp_path: Path) -> None:
    config = TransformConfig.load(
        source__table=f"{tmp_path}/images",
        output__table=f"{tmp_path}/small",
        group_by=["label"],
        transform={"function": "tests.local.job_functions:twice"},
    )
    assert code(lambda: sample(config, 3)) == "SAMPLE_GROUPS"


def test_a_log_without_its_newest_file_is_no_start(tmp_path: Path) -> None:
    add_rows(tmp_path / "source", {"id": [1], "x": [1.0]})
    config = job(tmp_path)
    predict_table(config)
    table = DeltaTable(config.output.table)
    table.create_checkpoint()
    Path(config.output.table, "_delta_log", f"{table.version():020d}.json").unlink()
    add_rows(tmp_path / "source", {"id": [2], "x": [2.0]})
    assert code(lambda: predict_table(config)) == "TABLE_LOG"


def test_a_catalog_name_is_no_path() -> None:
    assert code(lambda: location("main.images")) == "TABLE_NOT_PATH"


def test_a_model_that_refuses_its_rows_is_not_registered(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    (tmp_path / "unfitted.pkl").write_bytes(pickle.dumps(LinearRegression()))
    rows = {"inputs": np.array(["a", "b"], dtype=object)}
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    file = str(tmp_path / "unfitted.pkl")
    assert code(lambda: log_model(file, name="m", trust=True, input_example=rows, registry=registry)) == "MODEL_PROBE"


def test_a_registry_s_database_that_does_not_open_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("no database")
    assert code(lambda: find("models:/a@b", f"sqlite:///{tmp_path}/other.db")) == "REGISTRY_UNREACHABLE"
    with socket.create_server(("127.0.0.1", 0)) as listening:  # reachable, and its driver is in no extra of ours
        uri = f"mssql+pymssql://me:secret@127.0.0.1:{listening.getsockname()[1]}/db"
        with pytest.raises(
            LakemillError, match=r"^\[EXTRA_MISSING\] the registry 'mssql.pymssql://\*\*\*@127.* 'pymssql'"
        ):
            find("models:/a@b", uri)


def test_asking_a_registry_whose_file_is_not_there_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/absent/mlflow.db"
    for ask in (find, alias_version):
        with pytest.raises(LakemillError, match=r"^\[MODEL_NOT_FOUND\] .*absent/mlflow.db' is not there"):
            ask("models:/a@b", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert code(lambda: find("models:/a/1")) == "MODEL_NOT_FOUND"
    assert list(tmp_path.iterdir()) == []
