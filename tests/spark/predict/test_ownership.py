"""A job writes, replaces and deletes only what is its own: in a catalog, with mapped columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakemill import LakemillError, predict_table
from tests.lake import OWN_FUNCTIONS, numbers_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FEED = "delta.enableChangeDataFeed"


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Yield a folder with a table of 4 numbers."""
    monkeypatch.syspath_prepend(str(OWN_FUNCTIONS))
    spark.sql("SELECT id, CAST(id AS DOUBLE) AS x FROM range(4)").write.format("delta").save(f"{tmp_path}/numbers")
    return tmp_path


def version(lake: Path, table: str = "predictions") -> int:
    return DeltaTable(f"{lake}/{table}").version()


NAMES = ["_deleted", "version", "present", "change_type", "a.b", "with space", "größe", "_version", "__gone"]


@pytest.mark.matrix  # tests/local/test_keys.py has its like
@pytest.mark.parametrize("way", ["key", "carried"])
def test_internal_names_never_meet_a_users(lake: Path, spark: SparkSession, way: str) -> None:
    named = ", ".join(f"id % 2 AS `{name.replace('`', '``')}`" for name in NAMES)
    rows = spark.sql(f"SELECT id, CAST(id AS DOUBLE) AS x, {named} FROM range(4)")  # noqa: S608 -- of this test
    rows.limit(0).write.format("delta").option("delta.columnMapping.mode", "name").save(f"{lake}/named")
    spark.sql(f"ALTER TABLE delta.`{lake}/named` SET TBLPROPERTIES ('{FEED}' = 'true')")
    rows.coalesce(1).write.format("delta").mode("append").save(f"{lake}/named")
    usual: dict[str, Any] = {"source__table": f"{lake}/named", "source__changes": "upsert"}
    usual |= {"source__key": ["id", *NAMES]} if way == "key" else {"source__columns": NAMES}
    assert predict_table(numbers_job(lake, **usual), spark).rows == 4
    expected = [{"id": number} | dict.fromkeys(NAMES, number % 2) for number in range(4)]

    def carried() -> list[dict[str, Any]]:
        rows = spark.table(f"delta.`{lake}/predictions`").collect()
        return sorted(({name: row[name] for name in ("id", *NAMES)} for row in rows), key=lambda row: str(row["id"]))

    assert carried() == expected
    spark.sql(f"UPDATE delta.`{lake}/named` SET x = 9 WHERE id = 1")  # noqa: S608 -- a folder of the test
    assert predict_table(numbers_job(lake, **usual), spark).rows == 1
    assert carried() == expected
    assert predict_table(numbers_job(lake, function="twice_and_thrice", mode="missing", **usual), spark).rows == 4
    assert predict_table(numbers_job(lake, mode="full", **usual), spark).rows == 4
    assert carried() == expected
    spark.sql(f"DELETE FROM delta.`{lake}/named` WHERE id = 0")  # noqa: S608 -- a folder of the test
    predict_table(numbers_job(lake, **usual), spark)
    assert carried() == expected[1:]


def test_a_source_of_the_catalog_is_not_overwritten_by_its_path(lake: Path, spark: SparkSession) -> None:
    spark.sql(f"CREATE TABLE own_numbers USING delta LOCATION '{lake}/numbers'")
    try:
        for read, written in (("Own_Numbers", f"{lake}/numbers"), (f"{lake}/numbers", "OWN_numbers")):
            config = numbers_job(
                lake, source__table=read, output__table=written, output__checkpoint=f"{lake}/progress", mode="full"
            )
            with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
                predict_table(config, spark)
    finally:
        spark.sql("DROP TABLE own_numbers")
    assert version(lake, "numbers") == 0
    assert not (lake / "progress.lock").exists()
