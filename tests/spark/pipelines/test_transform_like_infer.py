"""``transform`` gives on Spark, row for row, what ``infer`` gives, for every form that a Delta table can hold."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lakemill import Pipeline, PredictConfig, predict_table
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import Check, PythonStep
from lakemill_udfs.tensors.columns import read_tensor, write_tensor
from lakemill_udfs.tensors.spec import ARROW_SCALARS, DTYPES, OBJECTS, TensorSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 5

FUNCTIONS = """
import numpy as np


def same(inputs):
    return {"y" + name[1:]: values for name, values in inputs.items()}


def mask(inputs):
    return {"mask": (inputs["frame"] > 3).astype("uint16") * 9, "grey": inputs["frame"].astype("float16") / 2}


def area(inputs):
    grey = inputs["grey"].astype("float64")
    return {"area": (inputs["mask"] > 0).sum(axis=(1, 2)), "grey_sum": grey.sum(axis=(1, 2))}
"""


@pytest.fixture(autouse=True, scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put a user's module on the driver's path."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "same_values.py").write_text(FUNCTIONS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("same_values", None)


@dataclass(frozen=True)
class Case:
    """One tensor in one form."""

    spec: TensorSpec
    values: NDArray[Any]
    column: pa.Array
    is_tagged: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dtype = draw(st.sampled_from([dtype for dtype in DTYPES if dtype not in OBJECTS] + ["string"]))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 120, (ROWS, *shape))
    if dtype == "string":
        return _case(dtype, shape, values.astype(str).astype(object), "auto")
    values = (values % 2 if dtype == "bool" else values).astype(dtype)
    return _case(dtype, shape, values, draw(st.sampled_from(["auto", "free", "nested", "flat"])))


def _case(dtype: str, shape: tuple[int, ...], values: NDArray[Any], form: str) -> Case:
    spec = TensorSpec("x", dtype, shape)
    if form == "free" and shape:
        return Case(spec, values, write_tensor(values, TensorSpec("x", dtype, (None, *shape[1:]))), is_tagged=True)
    if form in ("nested", "flat") and shape:
        given = values if form == "nested" else values.reshape(ROWS, -1)
        kind = ARROW_SCALARS[dtype]
        for _ in given.shape[1:]:
            kind = pa.list_(kind)
        plain = given.astype("float32") if dtype == "float16" else given
        return Case(spec, values, pa.array(plain.tolist(), kind), is_tagged=False)
    return Case(spec, values, write_tensor(values, spec), is_tagged=True)


def same_pipeline(specs: list[TensorSpec]) -> Pipeline:
    step = PythonStep(
        "same_values:same",
        {f"y{at}": {"dtype": spec.dtype, "shape": list(spec.shape)} for at, spec in enumerate(specs)},
        {f"x{at}": f"x{at}" for at in range(len(specs))},
    )
    inputs = [TensorSpec(f"x{at}", spec.dtype, spec.shape) for at, spec in enumerate(specs)]
    return Pipeline((step,), (Check("late", "in.id > 2"),), inputs=tuple(inputs))


def tagged(rows: DataFrame, table: pa.Table) -> DataFrame:
    for field in table.schema:
        if field.metadata:
            rows = rows.withMetadata(field.name, {k.decode(): v.decode() for k, v in field.metadata.items()})
    return rows


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(cases(), min_size=12, max_size=12), st.integers(0, ROWS - 1))
def test_transform_gives_what_infer_gives(spark: SparkSession, drawn: list[Case], bad: int) -> None:
    fields = [pa.field("id", pa.int64())]
    columns = [pa.array(range(ROWS), pa.int64())]
    for at, case in enumerate(drawn):
        free = TensorSpec("x", case.spec.dtype, (None,) * len(case.spec.shape))
        spec = free if pa.types.is_struct(case.column.type) else case.spec
        fields.append(pa.field(f"x{at}", case.column.type, metadata=spec.metadata() if case.is_tagged else None))
        columns.append(case.column)
    nothing = pa.array([row == bad for row in range(ROWS)])
    columns[1] = pa.compute.if_else(nothing, pa.scalar(None, columns[1].type), columns[1])
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    good = [row for row in range(ROWS) if row != bad]
    pipeline = same_pipeline([case.spec for case in drawn])
    local = pipeline.infer(table.take(good), dataset=["out", "anomaly"])
    result = pipeline.transform(tagged(spark.createDataFrame(table), table), columns=["id"]).orderBy("id").toArrow()
    errors = result["error"].to_pylist()
    assert [error and (error["stage"], error["code"]) for error in errors] == [
        ("cast", "INPUT_NULL") if row == bad else None for row in range(ROWS)
    ]
    out, anomaly = result["out"].combine_chunks().take(good), result["anomaly"].combine_chunks().take(good)
    assert anomaly.field("late").to_pylist() == local["anomaly.late"].to_pylist() == [row > 2 for row in good]
    for at, case in enumerate(drawn):
        for column in (out.field(f"y{at}"), local[f"out.y{at}"]):
            values, failures = read_tensor(column, case.spec, case.spec.dtype)
            assert not any(failures or [])
            assert values.dtype == case.spec.numpy_dtype
            np.testing.assert_array_equal(values, case.values[good])


FIRST = Pipeline(
    (
        PythonStep(
            "same_values:mask",
            {"mask": {"dtype": "uint16", "shape": [2, 3]}, "grey": {"dtype": "float16", "shape": [2, 3]}},
            {"frame": "frame"},
        ),
    ),
    inputs=(TensorSpec("frame", "uint8", (2, 3)),),
)
AREAS = {"area": {"dtype": "int64"}, "grey_sum": {"dtype": "float64"}}


def second(mask: str, grey: str) -> Pipeline:
    return Pipeline((PythonStep("same_values:area", AREAS, {"mask": mask, "grey": grey}),))


def test_one_pipeline_reads_what_another_wrote(tmp_path: Path, spark: SparkSession) -> None:
    frames = np.arange(18, dtype="uint8").reshape(3, 2, 3)
    table = pa.table({"id": [0, 1, 2], "frame": [frame.tobytes() for frame in frames]})
    FIRST.transform(spark.createDataFrame(table)).write.format("delta").save(str(tmp_path / "masks"))
    masks = spark.read.format("delta").load(str(tmp_path / "masks"))
    wanted = [((frame > 3).sum(), frame.sum() / 2) for frame in frames]
    nested = second("out.mask", "out.grey").transform(masks, columns=["id"])
    flat = second("mask", "grey").transform(masks.select("id", "out.*"))
    for rows in (nested, flat):
        assert rows.orderBy("id").select("out.area", "out.grey_sum").collect() == wanted
    local = second("out.mask", "out.grey").infer(FIRST.infer(table))
    assert list(zip(local["out.area"].to_pylist(), local["out.grey_sum"].to_pylist(), strict=True)) == wanted


def test_a_job_scores_the_predictions_of_another(tmp_path: Path, spark: SparkSession) -> None:
    frames = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    table = pa.table({"id": [0, 1], "frame": [frame.tobytes() for frame in frames]})
    FIRST.transform(spark.createDataFrame(table)).write.format("delta").save(str(tmp_path / "masks"))
    schema = json.loads(DeltaTable(tmp_path / "masks").schema().to_json())
    (out,) = [field for field in schema["fields"] if field["name"] == "out"]
    assert out["type"]["fields"][0]["metadata"] == TensorSpec("mask", "uint16", (2, 3)).metadata()
    config = PredictConfig.load(
        name="areas",
        source={"table": f"{tmp_path}/masks", "key": ["id"]},
        pipeline=second("out.mask", "out.grey").to_dict(),
        output={"table": f"{tmp_path}/areas"},
    )
    assert predict_table(config, spark).rows == 2
    rows = DeltaTable(tmp_path / "areas").to_pyarrow_table().sort_by("id")["out"].to_pylist()
    assert [row["area"] for row in rows] == [2, 6]


def test_a_function_without_an_import_path_does_not_travel_to_spark(spark: SparkSession) -> None:
    step = PythonStep(lambda inputs: {"y": inputs["id"] + 1}, {"y": {"dtype": "int64"}}, {"id": "id"})
    with pytest.raises(ConfigError, match=r"^\[FUNCTION_LOCAL\] .*<lambda>' has no import path, .* Spark's workers"):
        Pipeline((step,)).transform(spark.range(2))
