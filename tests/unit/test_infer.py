"""In-process inference: the same kind of thing out as in, and a bad row raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakemill.pipeline import Pipeline
from lakemill_udfs.errors import ConfigError, RowError
from lakemill_udfs.steps import Check, FormatStep, ImageStep, PythonStep
from tests.lake import image_rows
from tests.unit.plans import function

ROWS = image_rows(0, 4)
DARK = Pipeline(
    (ImageStep(mode="L", size=(1, 1), layout="flat", output="x"), function("double", {"y": {"shape": [1]}})),
    (Check("first", "in.number = 0"),),
)
BRIGHTNESS = [[20 * number / 255 * 2] for number in range(4)]


def test_arrow_pandas_and_dicts_give_the_same_and_come_back_as_they_are() -> None:
    table = DARK.infer(ROWS)
    assert isinstance(table, pa.Table)
    assert table.column_names == [
        "path",
        "modification_time",
        "label",
        "number",
        "time",
        "out.y",
        "anomaly.count",
        "anomaly.first",
    ]
    np.testing.assert_allclose(table["out.y"].to_pylist(), BRIGHTNESS, rtol=1e-6)
    assert table["anomaly.first"].to_pylist() == [True, False, False, False]
    batch = DARK.infer(ROWS.combine_chunks().to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    frame = DARK.infer(ROWS.to_pandas())
    assert isinstance(frame, pd.DataFrame)
    assert [list(value) for value in frame["out.y"]] == table["out.y"].to_pylist() == batch["out.y"].to_pylist()
    plain = DARK.infer(ROWS.select(["content", "number"]).to_pydict())
    assert plain["out.y"] == table["out.y"].to_pylist()


@pytest.mark.parametrize(
    "kind", [list, np.asarray, lambda x: [np.array(row) for row in x]], ids=["lists", "array", "rows"]
)
def test_a_dict_maps_an_input_to_its_batch(kind: Any) -> None:
    x = np.arange(12, dtype="float64").reshape(2, 3, 2)
    step = PythonStep("tests.unit.features:double", {"y": {"dtype": "float64", "shape": [3, 2]}}, {"x": "x"})
    result = Pipeline((step,)).infer({"x": kind(x.tolist())})
    np.testing.assert_array_equal(np.frombuffer(result["out.y"][1]).reshape(3, 2), x[1] * 2)


def test_the_error_names_the_row_and_the_stage() -> None:
    with pytest.raises(RowError, match=r"^\[IMAGE_DECODE\] row 2, decode: the image does not decode"):
        DARK.infer(image_rows(0, 4, broken=[2, 3]))


def test_no_rows_give_the_same_columns() -> None:
    assert DARK.infer(ROWS.slice(0, 0)).schema == DARK.infer(ROWS).schema


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^\[INFER_INPUT\] .* got list"):
        DARK.infer([1, 2])


def test_scores_of_a_table_are_formatted() -> None:
    result = Pipeline((FormatStep("s", labels=("a", "b")),)).infer({"s": np.array([[0.2, 0.8], [0.9, 0.1]])})
    assert result["out.label"] == ["b", "a"]
