"""What whoever writes to the source can make a job do: an error of their own row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ImageStep, Pipeline, PredictConfig, RunError, predict_table
from lakemill.in_process.files import read_data
from lakemill_udfs.errors import ConfigError
from tests.security.hostile import SECRET, TEXTS


def job(lake: Path, function: str, texts: list[str], *overrides: str, **output: Any) -> PredictConfig:
    """Return a local job over rows of these texts, of which each goes through a function of ``hostile``."""
    write_deltalake(lake / "rows", pa.table({"id": [str(number) for number in range(len(texts))], "text": texts}))
    step = {"function": f"tests.security.hostile:{function}", "inputs": {"text": "text"}}
    return PredictConfig.load(
        None,
        ("engine.name=local", *overrides),
        source={"table": f"{lake}/rows", "key": ["id"]},
        pipeline={"steps": [{"python": step | {"outputs": {"y": {"dtype": "float64"} | output}}}]},
        output={"table": f"{lake}/predictions"},
    )


def errors(lake: Path) -> dict[str, str]:
    """Return code and message of each row with an error, by the row's id."""
    rows = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    return {row["id"]: f"{row['error']['code']} {row['error']['message']}" for row in rows if row["error"]}


def test_a_rows_text_never_decides_what_a_failure_is(tmp_path: Path) -> None:
    """``ValueError`` with "out of memory" in its text stopped the job at every run."""
    done = predict_table(job(tmp_path, "refuse", ["good", *TEXTS, "good"]))
    assert (done.rows, done.rows_error) == (6, 4)
    assert set(errors(tmp_path).values()) == {"MODEL_FAILED the step raised ValueError for this row."}


def test_a_function_that_ends_the_process_or_speaks_for_lakemill_fails_its_row(tmp_path: Path) -> None:
    predict_table(job(tmp_path, "leave", ["good", "leave", "good", "lakemill"]))
    raised = {"1": "SystemExit", "3": "RunError"}
    assert errors(tmp_path) == {
        row: f"MODEL_FAILED the step raised {kind} for this row." for row, kind in raised.items()
    }


@pytest.mark.parametrize("kind", ["connection", "time", "permission", "import"])
def test_no_text_of_a_row_leaves_a_worker(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    with pytest.raises(RunError, match=r"^\[STEP_ENVIRONMENT\]") as caught:
        predict_table(job(tmp_path, "is_away", [kind, kind]))
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", ["connection", "time", "permission"])
@pytest.mark.parametrize("rows", [1, 9])
def test_a_row_that_names_a_host_that_is_away_stops_no_run(tmp_path: Path, kind: str, rows: int) -> None:
    """A function that asks where a row says raises for that row; an outage is told by rows one after another."""
    texts = ["good"] * (rows // 2) + [kind] + ["good"] * (rows // 2)
    done = predict_table(job(tmp_path, "is_away", texts))
    assert (done.rows, done.rows_error) == (rows, 1)


@pytest.mark.parametrize("texts", [["time"] * 2, ["good"] * 20 + ["time"] * 12, ["good", *["time"] * 3, "good"]])
def test_an_outage_stops_the_run(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(RunError, match=r"^\[STEP_ENVIRONMENT\] a step raised TimeoutError"):
        predict_table(job(tmp_path, "is_away", texts))
    assert not (tmp_path / "predictions").exists() or not DeltaTable(tmp_path / "predictions").to_pyarrow_table()


def test_an_arrow_file_with_offsets_behind_its_buffer_is_an_error(tmp_path: Path) -> None:
    """Reading such a text ended the process with SIGBUS."""
    file = tmp_path / "rows.arrow"
    table = pa.table({"x": ["abc", "defg"]})
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    data = file.read_bytes()
    offsets = (0).to_bytes(4, "little") + (3).to_bytes(4, "little") + (7).to_bytes(4, "little")
    assert data.count(offsets) == 1
    for end in (2**30, -5):
        file.write_bytes(data.replace(offsets, offsets[:8] + end.to_bytes(4, "little", signed=True)))
        with pytest.raises(ConfigError, match=r"^\[FILE_CONTENT\]"):
            read_data(file, Pipeline((ImageStep(size=(8, 8)),)))
