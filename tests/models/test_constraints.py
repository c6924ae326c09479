"""The constraints that model servers publish, each for every light framework: what is not so is one row's error."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from lakemill import Pipeline
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.steps.declared import ModelStep
from tests.models.framework_models import BY_COLUMN, CASES, COLUMNS, FRAME, Case

ROWS = 6
ARRAYS = [row.tolist() for row in FRAME.to_numpy()[:ROWS]]
BY_ARRAY = [name for name in CASES if name not in (*BY_COLUMN, "own_class", "lightgbm_pyfunc", "lightgbm_mlflow")]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in CASES.items()}


def refused(case: Case, data: Any) -> LakemillError:
    with pytest.raises(LakemillError) as caught:
        Pipeline((case.step,)).infer(data)
    assert "secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", BY_ARRAY)
def test_rows_of_different_size_are_refused(cases: dict[str, Case], name: str) -> None:
    error = refused(cases[name], {"inputs": [*ARRAYS[:3], ARRAYS[3][:2]]})
    assert error.code in {"TENSOR_RAGGED", "TENSOR_SHAPE"}
    assert "row 3" in str(error)


@pytest.mark.parametrize("name", BY_ARRAY)
def test_numbers_and_texts_do_not_mix(cases: dict[str, Case], name: str) -> None:
    mixed = [*ARRAYS[:1], [0.5, "secret", 0.5, 0.5]]
    assert refused(cases[name], {"inputs": mixed}).code in {"INPUT_TYPE", "INFER_INPUT", "TENSOR_SHAPE", "INPUT_TEXT"}


@pytest.mark.parametrize("name", ["sklearn_pickle", "onnx_graph", "python_function", "own_class"])
def test_no_value_may_be_missing(cases: dict[str, Case], name: str) -> None:
    if name == "onnx_graph":
        data: Any = pa.table({"inputs": pa.array([ARRAYS[0], None], pa.list_(pa.float64(), 4))})
    else:
        data = pa.Table.from_pandas(FRAME[:2])
        data = data.set_column(0, "a", pa.array([0.5, None]))
    error = refused(cases[name], data)
    assert error.code == "INPUT_NULL"
    assert "row 1" in str(error)


@pytest.mark.parametrize("name", ["sklearn_pickle", "xgboost_estimator", "lightgbm_pyfunc"])
def test_dates_are_texts(cases: dict[str, Case], name: str) -> None:
    frame = FRAME[:2].assign(a=[dt.datetime(2026, 1, 2, tzinfo=dt.UTC)] * 2)
    error = refused(cases[name], frame)
    assert (error.code, "give dates as strings" in str(error)) == ("COLUMN_TYPE", True)


def test_a_date_in_words_reaches_a_model_of_texts(tmp_path: Path) -> None:
    code = "def process_data(x):\n    return {'year': np.array([int(day[:4]) for day in x['day']])}\n"
    (tmp_path / "year.py").write_text("import numpy as np\n\n" + code)
    step = ModelStep(tmp_path / "year.py", inputs={"day": "day"}, outputs={"year": {"dtype": "int64"}}, trust=True)
    frame = pd.DataFrame({"day": ["2026-01-02", "1999-12-31"]})
    assert Pipeline((step,)).infer(frame, dataset="out")["out.year"].tolist() == [2026, 1999]


def test_as_many_rows_come_out_as_went_in(tmp_path: Path) -> None:
    code = "def process_data(x):\n    return {'more': np.append(x['a'], 0.0)}\n"
    (tmp_path / "more.py").write_text("import numpy as np\n\n" + code)
    step = ModelStep(tmp_path / "more.py", inputs={"a": "a"}, outputs={"more": {"dtype": "float64"}}, trust=True)
    with pytest.raises(LakemillError, match=r"^\[OUTPUT_ROWS\]"):
        Pipeline((step,)).infer(FRAME[COLUMNS[:1]])
