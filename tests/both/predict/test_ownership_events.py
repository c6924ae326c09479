"""Whatever jobs are run in whatever order: what is not a job's own is as it was, row by row and file by file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from lakemill import LakemillError, PredictConfig
from tests.both.on import On

EXAMPLES = int(os.environ.get("LAKEMILL_EXAMPLES", "6"))
TABLES = ("numbers", "one", "two", "foreign", "bad", "numbers/in", "./one/", "numbers/../one", "")
FOLDERS = (None, "notes", "progress", "numbers", "one", "progress/in", "one_checkpoint")
NAMES = ("a", "b", "../one", "a.b")
EVENT = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "mode": st.sampled_from(("full", "full", "incremental", "missing", "where", "reset")),
        "function": st.sampled_from(("twice", "even_and_thrice")),
        "output": st.sampled_from(TABLES),
        "quarantine": st.sampled_from((None, *TABLES)),
        "checkpoint": st.sampled_from(FOLDERS),
        "rows": st.integers(0, 3),
    }
)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Return a lake with a source, a table of something else and a folder of notes."""
    write_deltalake(tmp_path / "numbers", pa.table({"id": [0, 1, 2, 3], "x": [0.0, 1.0, 2.0, 3.0]}))
    write_deltalake(tmp_path / "foreign", pa.table({"id": [1], "note": ["kept"]}))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("x")
    return tmp_path


def job(lake: Path, event: dict[str, Any]) -> PredictConfig:
    outputs = {name: {"dtype": "float64"} for name in (("y", "z") if "thrice" in event["function"] else ("y",))}
    step = {"function": f"own_functions:{event['function']}", "inputs": {"x": "x"}, "outputs": outputs}
    places = {"output__checkpoint": event["checkpoint"], "quarantine__table": event["quarantine"]}
    return PredictConfig.load(
        name=event["name"],
        mode="full" if event["mode"] == "reset" else event["mode"],
        source__table=f"{lake}/numbers",
        source__key=["id"],
        source__where=f"id >= {event['rows']}",
        pipeline__steps=[{"python": step}],
        output__table=f"{lake}/{event['output']}",
        **{key: f"{lake}/{place}" for key, place in places.items() if place is not None},
    )


def others(lake: Path, name: str) -> dict[str, Any]:
    """Return what is not a job's own: rows of all tables without its name, and files that are in no table."""
    logs = [log.parent for log in lake.rglob("_delta_log")]
    found: dict[str, Any] = {}
    for table in logs:
        rows = DeltaTable(table).to_pyarrow_table().to_pylist()
        kept = [row for row in rows if (row.get("metadata") or row).get("job") != name]
        texts = sorted(json.dumps(_known(row), default=str, sort_keys=True) for row in kept)
        if texts:  # an empty table is as good as none
            found[str(table.relative_to(lake))] = texts
    for file in lake.rglob("*"):
        in_table = any(table in file.parents for table in logs)
        is_progress = "checkpoint" in str(file) or "progress" in str(file) or _is_checkpoint_of(file, name)
        if file.is_file() and not in_table and not is_progress:
            found[str(file.relative_to(lake))] = file.read_bytes()
    return found


def _is_checkpoint_of(file: Path, name: str) -> bool:
    """Return whether a file lies in a folder that says to be a job's checkpoint, as where nothing was before."""
    said = [folder / "lakemill.json" for folder in file.parents]
    return any(json.loads(one.read_text()).get("job") == name for one in said if one.exists())


def _known(value: Any) -> Any:
    """Return a row without nulls: a table may have gained columns."""
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items() if inner is not None}
    return value


def usual(**values: Any) -> dict[str, Any]:
    event = {"name": "a", "mode": "full", "function": "twice", "output": "one", "quarantine": None, "checkpoint": None}
    return event | {"rows": 0} | values


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(EVENT, min_size=3, max_size=3))
@example(
    [usual(), usual(name="b", function="even_and_thrice", quarantine="bad"), usual(), usual(name="b", mode="reset")]
)
@example([usual(output="numbers"), usual(output="foreign"), usual(checkpoint="notes"), usual(name="../one")])
def test_what_is_not_a_jobs_own_is_as_it_was(start: Path, on: On, events: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.syspath_prepend(str(Path(__file__).parent))
        lake = Path(folder) / "lake"
        shutil.copytree(start, lake)
        for event in events:
            before, code = others(lake, event["name"]), None
            try:
                config = job(lake, event)
                if event["mode"] == "reset":
                    on.reset(config)
                else:
                    on.predict(config)
            except LakemillError as error:
                code = error.code
            assert code != "SPARK_FAILED", event
            assert others(lake, event["name"]) == before, event
