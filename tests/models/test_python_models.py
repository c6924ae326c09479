"""Models of Python code: a file or archive with ``process_data``, or a class of one's own with its files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import lakemill
from lakemill.pipelines.pipeline import Pipeline
from lakemill.pipelines.registry import find
from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.steps.declared import ModelStep

STEP = """
import numpy as np
import helper

def process_data(input_data):
    return {"output": np.rint(np.power(10, input_data["variable"])) + helper.MORE}
"""

OWN = """
import json
from pathlib import Path
import numpy as np
from lakemill import OwnModel, TensorSpec

class Scaled(OwnModel):
    inputs = (
        TensorSpec("input_1", "float32", (None,)),
        TensorSpec("input_2", "float32", (None,), nullable=True),
        TensorSpec("multiply_factor", "float64", nullable=True),
    )
    outputs = (TensorSpec("output", "float32", (None,)),)
    expected_types = (dict,)

    def load(self, folder: Path):
        return json.loads((folder / "data" / "weights.json").read_text())

    def predict(self, inputs):
        total = inputs["input_1"].copy()
        second = inputs.get("input_2")
        if second is not None and second.dtype != object and second.shape == total.shape:
            total = total + second
        factor = inputs.get("multiply_factor", np.full(len(total), np.nan))
        factor = np.where(np.isnan(factor.astype(float)), self.model["factor"], factor.astype(float))
        return {"output": (total * factor[:, None]).astype("float32")}
"""


def step_folder(folder: Path) -> Path:
    """Make a folder with a Python step, a module that it imports and what it needs."""
    folder.mkdir()
    (folder / "step.py").write_text(STEP)
    (folder / "helper.py").write_text("MORE = 1\n")
    (folder / "requirements.txt").write_text("# what it needs\nnumpy>=1\n")
    return folder


def own_folder(folder: Path, code: str = OWN) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "weights.json").write_text('{"factor": 1.0}')
    (folder / "any_name.py").write_text(code)
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_python_step_is_a_model(tmp_path: Path, form: str) -> None:
    folder = step_folder(tmp_path / "step")
    path = folder if form == "folder" else zipped(folder)
    step = ModelStep(path, inputs={"variable": "x"}, outputs={"output": {"dtype": "float64"}}, trust=True)
    assert Pipeline((step,)).infer({"x": np.array([1.0, 2.0])})["out.output"] == [11.0, 101.0]


def test_two_models_may_have_modules_of_one_name(tmp_path: Path) -> None:
    first, second = step_folder(tmp_path / "first"), step_folder(tmp_path / "second")
    (second / "helper.py").write_text("MORE = 5\n")
    for folder, expected in ((first, 11.0), (second, 15.0), (first, 11.0)):
        step = ModelStep(folder, inputs={"variable": "x"}, outputs={"output": {"dtype": "float64"}}, trust=True)
        assert Pipeline((step,)).infer({"x": np.array([1.0])})["out.output"] == [expected]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_class_of_ones_own_takes_inputs_that_may_be_missing(tmp_path: Path, form: str) -> None:
    folder = own_folder(tmp_path / "own")
    pipeline = Pipeline((ModelStep(folder if form == "folder" else zipped(folder), trust=True),))
    lists = pa.list_(pa.float32())

    def result(*columns: pa.Array) -> list[list[float]]:
        names = ["input_1", "input_2", "multiply_factor"][: len(columns)]
        table = pa.table(dict(zip(names, columns, strict=True)))
        return list(pipeline.infer(table, dataset="out")["out.output"].to_pylist())

    first = pa.array([[1, 2], [3, 4]], lists)
    assert result(first, pa.array([[5, 6], [7, 8]], lists), pa.array([2, 3], pa.int32())) == [[12, 16], [30, 36]]
    assert result(first, pa.array([[], []], lists), pa.array([2, 3], pa.int32())) == [[2, 4], [9, 12]]
    assert result(first, pa.array([[], []], lists), pa.array([None, None], pa.int32())) == [[1, 2], [3, 4]]
    assert result(first, pa.array([None, None], lists), pa.array([2, None], pa.int32())) == [[2, 4], [3, 4]]
    assert result(first) == [[1, 2], [3, 4]]


def test_code_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "own", f"open({str(tmp_path / 'ran')!r}, 'w')\n{OWN}")
    with pytest.raises(ModelError, match=r"^\[MODEL_NOT_TRUSTED\]"):
        Pipeline((ModelStep(folder),)).infer({"input_1": [[1.0]]})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (OWN.replace("(dict,)", "(list,)"), r"\[MODEL_CODE\] model 'own' loaded a dict; its class expects: list"),
        (OWN + "\ndef process_data(x):\n    return x\n", r"\[MODEL_CODE\] .* 1 classes of OwnModel and a process_data"),
        (OWN.replace("weights.json", "gone.json"), r"\[MODEL_LOAD\] .*its file 'gone.json' is missing"),
        ("import nowhere_at_all\n" + OWN, r"\[MODEL_MODULE_MISSING\] .*'nowhere_at_all'"),
    ],
)
def test_code_that_does_not_load_says_why(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(ModelError, match="^" + message):
        Pipeline((ModelStep(own_folder(tmp_path / "own", code), trust=True),)).infer({"input_1": [[1.0]]})


def test_a_missing_requirement_and_two_entry_points_are_named(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "own")
    (folder / "requirements.txt").write_text("numpy\nno-such-package-here==1\n")
    with pytest.raises(ModelError, match=r"^\[MODEL_MODULE_MISSING\] .*'no-such-package-here'"):
        Pipeline((ModelStep(folder, trust=True),)).infer({"input_1": [[1.0]]})
    (folder / "other.py").write_text(STEP)
    with pytest.raises(ModelError, match=r"^\[MODEL_CODE\] .* 2 files .*: any_name.py, other.py"):
        Pipeline((ModelStep(folder, trust=True),)).infer({"input_1": [[1.0]]})


def test_an_archive_does_not_write_outside_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("any_name.py", OWN)
        archive.writestr("../escaped.txt", "x")
    with pytest.raises(ModelError, match=r"^\[MODEL_PATH\]"):
        Pipeline((ModelStep(path, trust=True),)).infer({"input_1": [[1.0]]})
    assert not (tmp_path.parent / "escaped.txt").exists()


def test_code_is_registered_and_plain_mlflow_loads_it(tmp_path: Path) -> None:
    import mlflow.pyfunc

    registry = f"sqlite:///{tmp_path}/mlflow.db"
    logged = lakemill.log_model(
        step_folder(tmp_path / "step"),
        name="step",
        alias="production",
        input_schema=pa.schema([("variable", pa.float64())]),
        output_schema=pa.schema([("output", pa.float64())]),
        registry=registry,
        trust=True,
    )
    assert (logged.runtime, logged.inputs, logged.outputs) == ("python", ("variable float64",), ("output float64",))
    frame = pd.DataFrame({"variable": [1.0, 2.0]})
    ours = Pipeline.load("models:/step@production", registry).infer(frame, registry=registry)
    assert ours["out.output"].tolist() == [11.0, 101.0]
    assert mlflow.pyfunc.load_model(str(find(logged.uri, registry).path)).predict(frame)["out.output"].tolist() == [
        11.0,
        101.0,
    ]
    with pytest.raises(ModelError, match=r"^\[MODEL_SCHEMA\] .*declared as \(output int32\).*output float64"):
        lakemill.log_model(
            tmp_path / "step",
            name="step",
            input_schema=pa.schema([("variable", pa.float64())]),
            output_schema=pa.schema([("output", pa.int32())]),
            registry=registry,
            trust=True,
        )


def test_a_failure_in_the_code_is_a_row_without_its_text(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "m.py").write_text("def process_data(x):\n    raise ValueError(f'secret {x}')\n")
    step = ModelStep(folder, inputs={"x": "x"}, outputs={"y": {"dtype": "float64"}}, trust=True)
    with pytest.raises(LakemillError) as caught:
        Pipeline((step,)).infer({"x": np.array([1.0])})
    assert "secret" not in str(caught.value)
