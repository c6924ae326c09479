"""Columns of a source whose names Delta's change feed or an engine has for its own: refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ConfigError, PredictConfig, predict_stream
from tests.both.on import On

FEED = {"delta.enableChangeDataFeed": "true"}
OF_THE_FEED = ("_change_type", "_commit_version", "_Commit_Timestamp")
OURS = ("__lakemill_row", "__LakeMill_anything")


def job(lake: Path, key: str, **more: object) -> PredictConfig:
    step = {"function": "own_functions:twice", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    return PredictConfig.load(
        name="job",
        source__table=f"{lake}/source",
        source__key=[key],
        pipeline__steps=[{"python": step}],
        output__table=f"{lake}/output",
        **more,
    )


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("key", [True, False], ids=["key", "other"])
@pytest.mark.parametrize("name", [*OF_THE_FEED, *OURS])
def test_a_name_that_something_else_has_is_refused(tmp_path: Path, on: On, name: str, key: bool) -> None:
    columns = {name: [1, 2], "x": [1.0, 2.0]} if key else {"id": [1, 2], "x": [1.0, 2.0], name: [1, 2]}
    write_deltalake(tmp_path / "source", pa.table(columns), configuration=FEED)
    with pytest.raises(ConfigError, match=rf"^\[COLUMN_RESERVED\] '.*source' has a column '{name}'"):
        on.predict(job(tmp_path, name if key else "id", source__changes="upsert"))
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", [*OF_THE_FEED, *OURS])
def test_a_stream_refuses_it_at_its_start(tmp_path: Path, on: On, name: str) -> None:
    columns = {"id": [1, 2], "x": [1.0, 2.0], name: [1, 2]}
    write_deltalake(tmp_path / "source", pa.table(columns), configuration=FEED)
    stream = on.job(job(tmp_path, "id", source__changes="upsert", trigger="available_now"))
    with pytest.raises(ConfigError, match=rf"^\[COLUMN_RESERVED\] '.*source' has a column '{name}'"):
        predict_stream(stream, on.session)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", [OF_THE_FEED[0], OURS[0]])
def test_a_stream_refuses_it_at_a_start_after_it_was_added(tmp_path: Path, on: On, name: str) -> None:
    write_deltalake(tmp_path / "source", pa.table({"id": [1, 2], "x": [1.0, 2.0]}), configuration=FEED)
    stream = on.job(job(tmp_path, "id", source__changes="upsert", trigger="available_now"))
    assert predict_stream(stream, on.session).rows == 2
    more = pa.table({"id": [3], "x": [3.0], name: [7]})
    write_deltalake(tmp_path / "source", more, mode="append", schema_mode="merge")
    with pytest.raises(ConfigError, match=rf"^\[COLUMN_RESERVED\] '.*source' has a column '{name}'"):
        predict_stream(stream, on.session)
    assert len(DeltaTable(tmp_path / "output").to_pyarrow_table()) == 2


@pytest.mark.parametrize("name", OF_THE_FEED)
def test_without_the_feed_its_names_are_names(tmp_path: Path, on: On, name: str) -> None:
    """Rows that are only added, and changes that a column shows, need no feed."""
    rows = pa.table({name: [1, 2], "x": [1.0, 2.0]})
    write_deltalake(tmp_path / "source", rows)
    on.predict(job(tmp_path, name))
    assert on.predict(job(tmp_path, name, mode="missing")).rows == 0
    following = {"source__changes": "upsert", "source__change_column": "x", "mode": "incremental"}
    on.reset(job(tmp_path, name))
    on.predict(job(tmp_path, name, **following))
    write_deltalake(tmp_path / "source", pa.table({name: [1, 3], "x": [5.0, 3.0]}), mode="overwrite")
    on.predict(job(tmp_path, name, **following))
    found = DeltaTable(tmp_path / "output").to_pyarrow_table().to_pylist()
    assert {row[name]: row["out"]["y"] for row in found} == {1: 10.0, 3: 6.0}
    assert len(found) == 2
