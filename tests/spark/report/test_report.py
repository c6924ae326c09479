"""The report of real predictions tables, whatever pipeline wrote them."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill.config.predict import PredictConfig
from lakemill.engines.spark.engine import SparkEngine
from lakemill.report.data import collect
from lakemill.report.page import write_report
from lakemill.report.values import Totals
from lakemill_udfs.errors import TableError
from lakemill_udfs.plan import ERROR, METADATA
from tests.lake import png

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakemill.engines.engine import Engine

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
MODEL = {"name": "digits", "version": "3", "sha256": "ab" * 32}


@pytest.fixture
def engine(spark: SparkSession) -> Engine:
    """Return what reads the tables."""
    return SparkEngine(spark)


def write_predictions(
    table: Path,
    out: pa.StructType,
    carried: dict[str, pa.DataType],
    rows: list[dict[str, Any]],
    anomaly: pa.StructType | None = None,
) -> str:
    """Write a predictions table; rows without ``out`` get an error."""
    error = {"stage": "decode", "code": "IMAGE_DECODE", "message": "the image does not decode (OSError)."}
    metadata = {"job": "j", "pipeline": "p", "pipeline_version": "0123", "models": [MODEL]}
    checks = [("anomaly", anomaly)] if anomaly else []
    fields = [
        *carried.items(),
        ("time", pa.timestamp("us", "UTC")),
        ("out", out),
        *checks,
        ("error", ERROR),
        ("metadata", METADATA),
    ]
    filled = [{"time": NOW, "error": None if row.get("out") else error, "metadata": metadata, **row} for row in rows]
    write_deltalake(str(table), pa.Table.from_pylist(filled, pa.schema(fields)))
    return str(table)


def test_a_classifier_with_images(engine: Engine, tmp_path: Path) -> None:
    source, output = tmp_path / "images", tmp_path / "predictions"
    paths = [f"img/{n}.png" for n in range(4)]
    write_deltalake(str(source), pa.table({"path": paths, "content": [png(1), png(2), png(3), b"no image"]}))
    out = pa.struct([("label", pa.string()), ("probability", pa.float32())])
    anomaly = pa.struct([("count", pa.int32()), ("unsure", pa.bool_())])
    results = [("cat", 0.9), ("dog", 0.4), ("cat", 0.8), None]
    write_predictions(
        output,
        out,
        {"path": pa.string(), "label": pa.string()},
        [
            {
                "path": path,
                "label": "cat",
                "out": result and dict(zip(("label", "probability"), result, strict=True)),
                "anomaly": {"count": int(n == 1), "unsure": n == 1},
            }
            for n, (path, result) in enumerate(zip(paths, results, strict=True))
        ],
        anomaly,
    )

    config = PredictConfig.load(
        name="pets",
        source__table=str(source),
        source__key=["path"],
        output__table=str(output),
        pipeline__uri="models:/pets@production",
        engine__name=engine.name,
    )
    page = write_report(config)

    assert page == tmp_path / "predictions_report.html"
    html = page.read_text(encoding="utf-8")
    assert "66.7\N{NARROW NO-BREAK SPACE}%" in html
    assert 'title="cat taken for dog">1<' in html
    assert html.count("data:image/png") == 7  # three results in the sample, three by probability, one mistake
    assert "IMAGE_DECODE" in html
    report = collect(engine, str(output), ["path"], title="pets", source=None)
    assert report.totals == Totals(4, 1, 1, 3, 2, NOW.replace(tzinfo=None), NOW.replace(tzinfo=None))
    assert [card.key for card in report.unsure] == ["img/1.png", "img/2.png", "img/0.png"]
    assert [card.key for card in report.wrong] == ["img/1.png"]
    assert [(check.name, check.value) for check in report.checks] == [("unsure", 1)]
    assert sum(step.rows for step in report.scores) == 3
    assert [(use.model, use.version, use.rows) for use in report.models] == [("digits", "3", 4)]


def test_a_regression_without_labels_or_images(engine: Engine, tmp_path: Path) -> None:
    results = [1.0, 2.0, 4.0, math.nan, math.inf, None]
    rows = [
        {"store": "a", "day": n, "sales": 2.0, "out": value and {"sales": value, "odd `name`.x": 1}}
        for n, value in enumerate(results)
    ]
    table = write_predictions(
        tmp_path / "sales",
        pa.struct([("sales", pa.float64()), ("odd `name`.x", pa.float64())]),
        {"store": pa.string(), "day": pa.int32(), "sales": pa.float64()},
        rows,
    )

    report = collect(engine, table, ["store", "day"], title="sales", source=None)

    sales, odd = report.histograms
    assert (sales.low, sales.high, sales.not_finite, sum(sales.counts)) == (1.0, 4.0, 2, 3)
    assert sales.mean_absolute_error == pytest.approx(1.0)
    assert (odd.low, odd.high, sum(odd.counts), odd.mean_absolute_error) == (1.0, 1.0, 5, None)
    assert report.errors[0].keys == ("a · 5",)
    assert (report.sample, report.confusion, report.scores, report.checks) == ((), None, (), ())


def test_an_empty_table_and_none_at_all(engine: Engine, tmp_path: Path) -> None:
    table = write_predictions(tmp_path / "empty", pa.struct([("label", pa.int64())]), {"path": pa.string()}, [])
    assert collect(engine, table, ["path"], title="t", source=None).totals == Totals(0)
    with pytest.raises(TableError, match="TABLE_NOT_FOUND"):
        collect(engine, str(tmp_path / "nothing"), ["path"], title="t", source=None)
