"""Keys of types that only Spark has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakemill import LakemillError, predict_table
from tests.lake import OWN_FUNCTIONS, numbers_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("column", "kind"), [("map(1, 2)", "map<int,int>"), ("parse_json('1')", "variant"), ("NULL", "void")]
)
def test_a_key_that_cannot_be_compared_is_named_before_anything_runs(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, column: str, kind: str
) -> None:
    monkeypatch.syspath_prepend(str(OWN_FUNCTIONS))
    spark.sql(f"SELECT {column} AS k, 1D AS x").write.format("delta").save(f"{tmp_path}/numbers")
    for values in ({}, {"source__changes": "append"}, {"mode": "missing"}):
        with pytest.raises(LakemillError) as raised:
            predict_table(numbers_job(tmp_path, **{"source__key": ["k"], "source__changes": "upsert"} | values), spark)
        assert raised.value.code == "KEY_TYPE"
        assert "'k'" in raised.value.message
        assert kind in raised.value.message
    assert not (tmp_path / "predictions").exists()
