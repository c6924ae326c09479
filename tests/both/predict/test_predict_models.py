"""Models and functions on executors: loaded once a worker, run once a row, checked, and bisected."""

from __future__ import annotations

import collections
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, Pipeline, PredictConfig
from tests.both.on import On
from tests.lake import FORMAT_STEP, IMAGE_STEP, add_images, onnx_classifier

COUNTING_MODEL = """
import os
from pathlib import Path

import mlflow
import numpy as np

LOG = Path({log!r})


def note(event):
    with LOG.open("a") as stream:
        stream.write(f"{{event}} {{os.getpid()}}\\n")


class Counting(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        note("load")

    def predict(self, context, model_input, params=None):
        for value in model_input["number"]:
            note(f"row-{{value}}")
        return np.asarray(model_input["number"], dtype=np.float64) * 2


mlflow.models.set_model(Counting())
"""

FUNCTIONS = '''
import numpy as np


def picky(inputs):
    """Double the numbers; 5 and 11 are too much for it."""
    numbers = inputs["number"]
    if np.isin(numbers, [5, 11]).any():
        raise ValueError(f"cannot do {numbers}")
    return {"double": numbers * 2}


def wrong_shape(inputs):
    return {"double": np.zeros((len(inputs["number"]), 2), dtype=np.int64)}


def loses_a_row(inputs):
    return {"double": (inputs["number"] * 2)[inputs["number"] != 4]}
'''


CENTRED = """
import pandas as pd


def centred(frame: pd.DataFrame):
    return pd.DataFrame({"double": frame["number"] - frame["number"].min()})
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a user's module beside the lake, importable on the driver only."""
    write_module(tmp_path, FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("user_functions", None)


def write_module(folder: Path, source: str) -> None:
    """Write the user's module, as an editor does, and let the driver see it as a new process would."""
    (folder / "user_functions.py").write_text(source)
    sys.modules.pop("user_functions", None)
    importlib.invalidate_caches()


def job(lake: Path, pipeline: list[Any], **values: Any) -> PredictConfig:
    return PredictConfig.load(
        None,
        (),
        name="job",
        source__table=f"{lake}/images",
        pipeline__steps=pipeline,
        output__table=f"{lake}/predictions",
        **values,
    )


def python_step(function: str) -> list[Any]:
    return [
        {
            "python": {
                "function": f"user_functions:{function}",
                "inputs": {"number": "number"},
                "outputs": {"double": {"dtype": "int64"}},
            }
        }
    ]


def rows_of(lake: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{lake}/predictions").to_pyarrow_table().sort_by("path").to_pylist()
    return rows


@pytest.mark.seam
def test_a_model_loads_once_a_worker_and_each_row_is_scored_once(tmp_path: Path, on: On) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    log = tmp_path / "events.txt"
    (tmp_path / "counting.py").write_text(COUNTING_MODEL.format(log=str(log)))
    signature = ModelSignature(Schema([ColSpec(DataType.long, "number")]), Schema([ColSpec(DataType.double, "score")]))
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(tmp_path / "counting.py"),
        signature=signature,
        pip_requirements=["mlflow"],
    )
    for start in (0, 10, 20, 30, 40, 50):  # six files, so six tasks
        add_images(tmp_path / "images", start, 10)
    log.unlink(missing_ok=True)  # saving loads the model once, to check it
    config = job(tmp_path, [{"model": {"uri": str(tmp_path / "model")}}])
    assert on.predict(config).rows == 60
    add_images(tmp_path / "images", 60, 10)
    assert on.predict(config).rows == 10
    events = [line.split() for line in log.read_text().splitlines()]
    scored = collections.Counter(event for event, _ in events if event.startswith("row-"))
    loads = [pid for event, pid in events if event == "load"]
    assert scored.keys() == {f"row-{number}" for number in range(70)}
    assert len(loads) == len(set(loads))  # no worker loaded it twice, over all tasks of both runs
    assert {row["out"]["score"] for row in rows_of(tmp_path)} == {2.0 * number for number in range(70)}
    tasks = DeltaTable(f"{tmp_path}/predictions_tasks").to_pyarrow_table().to_pylist()
    assert sum(task["models_loaded"] for task in tasks) == len(loads)
    warm_ups = [task["model_warm_up_seconds"] for task in tasks if task["model_warm_up_seconds"]]
    assert 1 <= len(warm_ups) <= len(loads)  # a worker's first call, and no other
    assert all(task["model_warm_up_seconds"] <= task["predict_seconds"] for task in tasks)
    assert set(scored.values()) == {1}


def test_rows_that_a_function_cannot_do_are_found_by_bisection(functions: Path, on: On) -> None:
    add_images(functions / "images", 0, 20)
    result = on.predict(job(functions, python_step("picky")))
    rows = rows_of(functions)
    assert (result.rows, result.rows_error) == (20, 2)
    assert [row["path"] for row in rows if row["error"]] == ["img/0005.png", "img/0011.png"]
    error = next(row["error"] for row in rows if row["error"])
    assert error == {"stage": "predict", "code": "MODEL_FAILED", "message": "the step raised ValueError for this row."}
    assert [row["out"]["double"] for row in rows if row["out"]] == [
        2 * number for number in range(20) if number not in (5, 11)
    ]


def test_a_function_that_loses_a_row_costs_that_row_only(functions: Path, on: On) -> None:
    add_images(functions / "images", 0, 8)
    on.predict(job(functions, python_step("loses_a_row")))
    rows = rows_of(functions)
    assert [row["path"] for row in rows if row["error"]] == ["img/0004.png"]
    assert rows[4]["error"]["message"] == "double: 1 rows went in, 0 came out."
    assert rows[5]["out"]["double"] == 10


@pytest.mark.seam
def test_a_result_of_the_wrong_shape_fails_the_run_with_both_shapes(functions: Path, on: On) -> None:
    add_images(functions / "images", 0, 4)
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_SHAPE\] double: expected \(4\), got \(4, 2\)"):
        on.predict(job(functions, python_step("wrong_shape")))
    assert rows_of(functions) == []


def test_an_edited_function_is_used_by_the_next_run_of_the_same_session(functions: Path, on: On) -> None:
    add_images(functions / "images", 0, 3)
    on.predict(job(functions, python_step("picky")))
    write_module(functions, FUNCTIONS.replace('"double": numbers * 2', '"double": numbers * 3'))
    on.predict(job(functions, python_step("picky"), mode="full"))
    assert [row["out"]["double"] for row in rows_of(functions)] == [0, 3, 6]


@pytest.mark.seam
def test_groups_are_scored_whole(functions: Path, on: On) -> None:
    write_module(functions, CENTRED)
    add_images(functions / "images", 0, 12)
    config = job(functions, python_step("centred"), mode="full", engine__group_by=["label"])
    assert on.predict(config).rows == 12
    rows = rows_of(functions)
    assert [row["out"]["double"] for row in rows] == [
        3 * (number // 3) for number in range(12)
    ]  # labels repeat every three
    assert {row["label"] for row in rows} == {"0", "1", "2"}


def test_a_registered_pipeline_is_scored_by_its_alias(tmp_path: Path, on: On) -> None:
    onnx_classifier(tmp_path / "model.onnx")
    add_images(tmp_path / "images", 0, 6, broken=(2,))
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    plain = job(
        tmp_path, [IMAGE_STEP, {"model": {"uri": str(tmp_path / "model.onnx")}}, FORMAT_STEP]
    ).pipeline.declared()
    uri = Pipeline(plain.steps).log(registered_model_name="digits", alias="production", registry=registry)
    assert uri == "models:/digits/1"
    config = PredictConfig.load(
        None,
        (),
        source__table=f"{tmp_path}/images",
        pipeline__uri="models:/digits@production",
        output__table=f"{tmp_path}/predictions",
        registry=registry,
    )
    result = on.predict(config)
    assert (result.rows, result.rows_error) == (6, 1)
    metadata = rows_of(tmp_path)[0]["metadata"]
    assert metadata["pipeline"] == "models:/digits@production"
    assert (metadata["models"][0]["name"], metadata["models"][0]["version"]) == ("digits", "1")
