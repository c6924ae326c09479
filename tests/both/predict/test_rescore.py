"""Earlier rows are scored again when the model changes, newest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakemill.predict.rescore import FIRST_ROWS
from tests.both.on import On
from tests.lake import add_images
from tests.streams import log_model, rows_of, stream_config


def test_earlier_rows_are_scored_again_with_the_new_model(tmp_path: Path, on: On) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    log_model(tmp_path, registry, bias=0.0)
    add_images(tmp_path / "images", 0, 5)
    uri = {"pipeline__uri": "models:/live@production", "registry": registry}
    on.predict(stream_config(tmp_path, trigger="available_now", **uri))
    log_model(tmp_path, registry, bias=1.0)
    add_images(tmp_path / "images", 5, 2)
    DeltaTable(tmp_path / "predictions").delete("path = 'img/0004.png'")
    result = on.predict(stream_config(tmp_path, trigger="available_now", rescore="changed", **uri))
    assert (result.rows, result.rows_rescored) == (2, 4)
    rows = rows_of(tmp_path)
    assert [row["path"] for row in rows] == [f"img/{number:04d}.png" for number in (0, 1, 2, 3, 5, 6)]
    assert {row["metadata"]["models"][0]["version"] for row in rows} == {"2"}
    again = on.predict(stream_config(tmp_path, trigger="available_now", rescore="changed", **uri))
    assert (again.rows, again.rows_rescored, again.batches) == (0, 0, 0)


def test_an_interrupted_rescore_goes_on_with_what_is_left(tmp_path: Path, on: On) -> None:
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    log_model(tmp_path, registry, bias=0.0)
    uri = {"pipeline__uri": "models:/live@production", "registry": registry}
    config = stream_config(tmp_path, trigger="available_now", rescore="changed", **uri)
    for start, count in ((0, 500), (500, FIRST_ROWS)):
        add_images(tmp_path / "images", start, count)
        on.predict(config)
    log_model(tmp_path, registry, bias=1.0)

    def interrupt(line: str) -> None:
        if "earlier rows again" in line:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        on.predict(config, progress=interrupt)
    done = [row["path"] for row in rows_of(tmp_path) if row["metadata"]["models"][0]["version"] == "2"]
    assert done == [f"img/{number:04d}.png" for number in range(500, 500 + FIRST_ROWS)], "newest first"
    result = on.predict(config)
    assert (result.rows, result.rows_rescored) == (0, 500)
    rows = rows_of(tmp_path)
    assert len(rows) == len({row["path"] for row in rows}) == 500 + FIRST_ROWS
    assert {row["metadata"]["models"][0]["version"] for row in rows} == {"2"}
