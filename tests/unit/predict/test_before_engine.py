"""What is known of a source before an engine starts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill.predict.before_engine import is_small


def test_a_table_on_this_disk_is_small_up_to_its_bytes(tmp_path: Path) -> None:
    table = tmp_path / "table"
    for _ in range(2):
        write_deltalake(table, pa.table({"id": [1, 2]}), mode="append")
    size = sum(file.stat().st_size for file in table.glob("*.parquet"))
    assert is_small(str(table))
    assert is_small(str(table), size)
    assert not is_small(str(table), size - 1)


@pytest.mark.parametrize("table", ["main.photos", "s3://bucket/photos", "./nothing/here"])
def test_of_other_tables_nothing_is_known(table: str) -> None:
    assert not is_small(table)


def test_a_log_that_cannot_be_read_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / f"{0:020d}.json").write_text("{no")
    assert not is_small(str(tmp_path))
