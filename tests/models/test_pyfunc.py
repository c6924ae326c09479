"""MLflow models of any signature and any form of result: nothing is dropped, a null answer is one row's null."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakemill.pipelines.pipeline import Pipeline
from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.steps.declared import ModelStep

MODEL = """
import datetime as dt
import mlflow.models
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        x = model_input
        return {expression}

mlflow.models.set_model(Model())
"""


def saved(folder: Path, expression: str, inputs: list[Any], outputs: list[Any]) -> Path:
    """Save a model whose ``predict`` returns the expression of its DataFrame ``x``."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    (folder / "code.py").write_text(MODEL.format(expression=expression))
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(folder / "code.py"),
        signature=ModelSignature(Schema(inputs), Schema(outputs)),
        pip_requirements=["mlflow"],
    )
    return folder / "model"


def column(kind: str, name: str | None, *, required: bool = True) -> Any:
    from mlflow.types import ColSpec

    return ColSpec(kind, name, required=required)


WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
KNOWS = "pd.DataFrame({'knows': ['note' in x and x['note'].notna().sum() or 0] * len(x)})"


@pytest.mark.parametrize(
    ("kind", "value"),
    [("datetime", WHEN), ("binary", b"abc"), ("string", "abc"), ("double", 1.5)],
)
@pytest.mark.parametrize("form", ["frame", "table"])
def test_an_optional_column_is_passed_on_when_it_is_there(tmp_path: Path, kind: str, value: Any, form: str) -> None:
    path = saved(
        tmp_path,
        KNOWS,
        [column("double", "x"), column(kind, "note", required=False)],
        [column("long", "knows")],
    )
    pipeline = Pipeline((ModelStep(path),))
    make = pd.DataFrame if form == "frame" else pa.table
    with_note = pipeline.infer(make({"x": [1.0, 2.0], "note": [value, value]}), dataset="out")
    without = pipeline.infer(make({"x": [1.0, 2.0]}), dataset="out")
    assert list(map(int, with_note["out.knows"].to_numpy())) == [2, 2]
    assert list(map(int, without["out.knows"].to_numpy())) == [0, 0]


def test_points_in_time_go_in_and_come_out(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        "pd.DataFrame({'later': x['at'] + pd.Timedelta(days=1), 'year': x['at'].dt.year})",
        [column("datetime", "at")],
        [column("datetime", "later"), column("integer", "year")],
    )
    result = Pipeline((ModelStep(path),)).infer(pa.table({"at": [WHEN]}), dataset="out")
    assert result["out.later"].to_pylist() == [WHEN + dt.timedelta(days=1)]
    assert result["out.year"].to_pylist() == [2026]


def test_objects_are_given_as_dicts_and_come_back_as_json(tmp_path: Path) -> None:
    from mlflow.types.schema import ColSpec, Object, Property

    place = Object([Property("city", "string")])
    path = saved(
        tmp_path,
        "[{'seen': {'city': row['city'].upper()}} for row in x['place']]",
        [ColSpec(place, "place")],
        [ColSpec(place, "seen")],
    )
    result = Pipeline((ModelStep(path),)).infer(pa.table({"place": [{"city": "Bonn"}]}), dataset="out")
    assert [json.loads(text) for text in result["out.seen"].to_pylist()] == [{"city": "BONN"}]


def test_a_frame_without_names_is_fed_by_place(tmp_path: Path) -> None:
    from mlflow.models import infer_signature

    signature = infer_signature(pd.DataFrame([[1.0, 2.0]]), pd.DataFrame([[1.0, 2.0]]))
    path = saved(tmp_path, "pd.DataFrame(x.to_numpy() * [2, 3])", signature.inputs.inputs, signature.outputs.inputs)
    result = Pipeline((ModelStep(path),)).infer({"0": np.array([1.0, 2.0]), "1": np.array([1.0, 2.0])})
    assert (result["out.0"], result["out.1"]) == ([2.0, 4.0], [3.0, 6.0])


@pytest.mark.parametrize(
    "expression",
    [
        "[{'a': v, 'b': str(v)} for v in x['x']]",
        "pd.DataFrame({'a': x['x'], 'b': x['x'].astype(str)})",
        "{'a': x['x'].to_numpy(), 'b': [str(v) for v in x['x']]}",
        "{'a': x['x'].tolist(), 'b': x['x'].astype(str)}",
    ],
)
def test_every_form_of_result_is_the_same(tmp_path: Path, expression: str) -> None:
    path = saved(tmp_path, expression, [column("double", "x")], [column("double", "a"), column("string", "b")])
    result = Pipeline((ModelStep(path),)).infer({"x": np.array([1.0, 2.5])})
    assert (result["out.a"], result["out.b"]) == ([1.0, 2.5], ["1.0", "2.5"])


def test_columns_of_an_array_are_the_outputs_in_order(tmp_path: Path) -> None:
    outputs = [column("double", "a"), column("double", "b")]
    path = saved(tmp_path, "np.stack([x['x'], -x['x']], axis=1)", [column("double", "x")], outputs)
    result = Pipeline((ModelStep(path),)).infer({"x": np.array([1.0, 2.5])})
    assert (result["out.a"], result["out.b"]) == ([1.0, 2.5], [-1.0, -2.5])


@pytest.mark.parametrize(
    ("expression", "kind", "expected"),
    [
        ("[None if v < 0 else v for v in x['x']]", "double", [1.0, None, 3.0]),
        ("pd.DataFrame({'y': [None if v < 0 else int(v) for v in x['x']]}, dtype='Int64')", "long", [1, None, 3]),
        ("[None if v < 0 else str(v) for v in x['x']]", "string", ["1.0", None, "3.0"]),
        ("[{'y': v} if v > 0 else {'y': None} for v in x['x']]", "double", [1.0, None, 3.0]),
        ("pd.DataFrame({'y': [None if v < 0 else [v, v] for v in x['x']]})", "array", [[1, 1], None, [3, 3]]),
    ],
)
def test_a_null_answer_is_null_for_its_row_only(tmp_path: Path, expression: str, kind: str, expected: Any) -> None:
    from mlflow.types.schema import Array, ColSpec, DataType

    output = ColSpec(Array(DataType.double), "y") if kind == "array" else column(kind, "y")
    path = saved(tmp_path, expression, [column("double", "x")], [output])
    pipeline = Pipeline((ModelStep(path),))
    table = pipeline.infer(pa.table({"x": [1.0, -2.0, 3.0]}), dataset="out")
    got = [
        list(np.frombuffer(cell["data"])) if isinstance(cell, dict) and cell else cell
        for cell in table["out.y"].to_pylist()
    ]
    assert got == expected


def test_a_result_of_no_such_form_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path, "object()", [column("double", "x")], [column("double", "y")])
    with pytest.raises(LakemillError, match=r"\[MODEL_OUTPUT_TYPE\] the model gives a object"):
        Pipeline((ModelStep(path),)).infer({"x": np.array([1.0, 2.0])})


def test_a_pickle_of_another_class_says_which(tmp_path: Path) -> None:
    path = saved(tmp_path, "x", [column("double", "x")], [column("double", "y")])
    broken = "import pickle\npickle.loads(b'cdatetime\\nNowhere\\n.')\n"
    (path / "code.py").write_text(broken)
    with pytest.raises(ModelError, match=r"^\[MODEL_LOAD\] .* AttributeError: its pickle needs datetime.Nowhere"):
        Pipeline((ModelStep(path),)).infer({"x": np.array([1.0])})
    (path / "code.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(ModelError, match=r"^\[MODEL_MODULE_MISSING\] .* 'nowhere_to_be_found'"):
        Pipeline((ModelStep(path),)).infer({"x": np.array([1.0])})


def test_params_and_model_config_reach_the_model(tmp_path: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema

    expression = "x['x'] * (params or {}).get('factor', 2) + context.model_config['bias']"
    (tmp_path / "code.py").write_text(MODEL.format(expression=expression))
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(tmp_path / "code.py"),
        signature=ModelSignature(
            Schema([column("double", "x")]),
            Schema([column("double", "y")]),
            ParamSchema([ParamSpec("factor", "double", 3.0)]),
        ),
        model_config={"bias": 1.0},
        pip_requirements=["mlflow"],
    )

    def result(**options: Any) -> Any:
        step = ModelStep(str(tmp_path / "model"), options=options)
        return Pipeline((step,)).infer({"x": np.array([1.0, 2.0])})["out.y"]

    assert result() == [4.0, 7.0]
    assert result(params={"factor": 10.0}) == [11.0, 21.0]
    assert result(model_config={"bias": 0.0}) == [3.0, 6.0]
    with pytest.raises(ModelError, match=r"^\[MODEL_OPTION\] .* no parameter 'fcator'; it has: factor"):
        result(params={"fcator": 1.0})
