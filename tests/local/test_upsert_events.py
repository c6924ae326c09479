"""Whatever happens to a source: after each run its predictions are those of the rows that it has, by a dictionary."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakemill import LakemillError, PredictConfig, predict_table

# Not as a module of `tests`: each run looks at all files of its function's package.
sys.path.insert(0, str(Path(__file__).parent))

EXAMPLES = int(os.environ.get("LAKEMILL_EXAMPLES", "12"))
FEED = {"delta.enableChangeDataFeed": "true"}
KEYS = st.one_of(st.integers(0, 5), st.none())
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), KEYS, st.integers(0, 9)),
        st.tuples(st.just("insert"), st.integers(6, 30), st.integers(0, 9)),
        st.tuples(st.just("update"), st.integers(0, 5), st.integers(0, 9)),
        st.tuples(st.just("rename"), st.integers(0, 5), st.integers(0, 9)),
        st.tuples(st.just("hide"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("delete_one"), KEYS),
        st.tuples(st.just("merge"), st.integers(0, 5), st.integers(0, 9)),
        st.tuples(st.just("overwrite"), st.integers(0, 3)),
        st.tuples(st.just("restore"), st.integers(1, 4)),
        st.tuples(st.just("optimize")),
        st.tuples(st.just("run")),
        st.tuples(st.just("run")),
    ),
    min_size=1,
    max_size=14,
)
Row = dict[str, Any]


class Source:
    """A table of ``key``, ``x``, ``hidden`` and ``row``, and the same rows in memory at each of its versions."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path, self.key = str(folder / "source"), key
        self.rows: list[Row] = []
        self.versions: dict[int, list[Row]] = {}
        self.numbers = 0
        self.write([self.row(number, number) for number in range(4)], "append")

    def row(self, key: int | None, x: int) -> Row:
        self.numbers += 1
        return {"key": key, "x": float(x), "hidden": False, "row": self.numbers}

    def write(self, rows: list[Row], mode: Any) -> None:
        write_deltalake(self.path, self.table(rows), mode=mode, configuration=FEED if not self.versions else None)
        self.note([*self.rows, *rows] if mode == "append" else rows)

    def table(self, rows: list[Row]) -> pa.Table:
        schema = pa.schema([("key", pa.int64()), ("x", pa.float64()), ("hidden", pa.bool_()), ("row", pa.int64())])
        return pa.Table.from_pylist(rows, schema).rename_columns([self.key, "x", "hidden", "row"])

    def note(self, rows: list[Row]) -> None:
        self.rows = [dict(row) for row in rows]
        self.versions[DeltaTable(self.path).version()] = self.rows

    def set(self, key: int, /, **values: Any) -> None:
        new = {self.key if name == "key" else name: value for name, value in values.items()}
        DeltaTable(self.path).update(
            new_values=None,
            updates={f"`{n}`": str(v).lower() for n, v in new.items()},
            predicate=f"`{self.key}` = {key}",
        )
        self.note([row | values if row["key"] == key else row for row in self.rows])

    def happen(self, kind: str, *what: Any) -> None:
        table = DeltaTable(self.path)
        if kind == "insert":
            self.write([self.row(*what)], "append")
        elif kind == "update":
            self.set(what[0], x=float(what[1]))
        elif kind == "rename":
            self.set(what[0], key=what[1])
        elif kind == "hide":
            self.set(what[0], hidden=what[1])
        elif kind == "delete":
            table.delete(f"`{self.key}` = {what[0]}")
            self.note([row for row in self.rows if row["key"] != what[0]])
        elif kind == "delete_one":
            found = [row["row"] for row in self.rows if row["key"] == what[0]]
            if found:
                table.delete(f"row = {found[-1]}")
                self.note([row for row in self.rows if row["row"] != found[-1]])
        elif kind == "merge":
            self.merge(table, *what)
        elif kind == "overwrite":
            self.write([self.row(number, 100 + number) for number in range(what[0])], "overwrite")
        elif kind == "restore" and table.version() - what[0] >= 0:
            version = table.version() - what[0]
            table.restore(version)
            self.note(self.versions[version])
        elif kind == "optimize":
            table.optimize.compact()
            self.note(self.rows)

    def merge(self, table: DeltaTable, key: int, x: int) -> None:
        """Delete the key's row, and add the next key's or give it another value."""
        new = self.row(key + 1, x)
        columns = {f"`{name}`": f"s.`{name}`" for name in (self.key, "x", "hidden", "row")}
        rows = self.table([{**new, "key": key}, new])
        merger = table.merge(rows, f"t.`{self.key}` = s.`{self.key}`", source_alias="s", target_alias="t")
        merger.when_matched_delete(f"s.`{self.key}` = {key}").when_matched_update({"x": "s.x"})
        merger.when_not_matched_insert(columns, f"s.`{self.key}` = {key + 1}").execute()
        known = [row for row in self.rows if row["key"] != key]
        if any(row["key"] == key + 1 for row in known):
            self.note([row | {"x": float(x)} if row["key"] == key + 1 else row for row in known])
        else:
            self.note([*known, new])

    @property
    def visible(self) -> list[Row]:
        return [row for row in self.rows if not row["hidden"]]

    def faults(self) -> str | None:
        counts = Counter(row["key"] for row in self.visible)
        if None in counts:
            return "KEY_NULL"
        return "KEY_NOT_UNIQUE" if max(counts.values(), default=0) > 1 else None


def predictions(folder: Path, key: str) -> dict[int, float] | None:
    """Read the predictions with the independent reader."""
    if not DeltaTable.is_deltatable(str(folder / "predictions")):
        return None
    rows = DeltaTable(folder / "predictions").to_pyarrow_table().to_pylist()
    found = {row[key]: row["out"]["y"] for row in rows}
    assert len(found) == len(rows)
    return found


@settings(max_examples=EXAMPLES)
@given(EVENTS, st.sampled_from(["id", "a.id"]), st.sampled_from([1, 4096, 2**30]))
@example([("run",), ("rename", 1, 100), ("run",)], "id", 2**30)  # the old key's prediction goes
@example([("insert", 1, 7), ("run",)], "id", 2**30)
@example([("run",), ("insert", 1, 7), ("run",), ("delete_one", 1), ("run",)], "id", 2**30)
@example([("run",), ("insert", 9, 7), ("insert", 9, 8), ("run",)], "id", 2**30)
@example([("run",), ("overwrite", 3), ("run",), ("restore", 1), ("run",)], "a.id", 1)
@example([("run",), ("insert", None, 7), ("run",), ("delete_one", None), ("run",)], "id", 2**30)
@example([("run",), ("hide", 1, True), ("run",), ("hide", 1, False), ("run",)], "id", 2**30)
def test_predictions_follow_their_source(events: list[tuple[Any, ...]], key: str, max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = Source(folder, key)
        config, was_refused = job(folder, key, max_bytes), False
        for event in (*events, ("run",)):
            if event[0] != "run":
                source.happen(*event)
                continue
            before, fault = predictions(folder, key), source.faults()
            if fault is None:
                predict_table(config)
                was_refused = False
                assert predictions(folder, key) == {row["key"]: 2 * row["x"] for row in source.visible}
                continue
            with pytest.raises(LakemillError) as raised:
                predict_table(config)
            assert raised.value.code in ("KEY_NULL", "KEY_NOT_UNIQUE")
            if max_bytes == 2**30 and not was_refused:  # else what came before the fault is committed
                assert (predictions(folder, key) or {}) == (before or {})
            was_refused = True


def job(folder: Path, key: str, max_bytes: int) -> PredictConfig:
    step = {"function": "job_functions:twice", "inputs": {"x": "x"}, "outputs": {"y": {"dtype": "float64"}}}
    return PredictConfig.load(
        name="follow",
        source__table=f"{folder}/source",
        source__key=[key],
        source__where="hidden = false",
        source__changes="upsert",
        pipeline__steps=[{"python": step}],
        output__table=f"{folder}/predictions",
        engine={"name": "local", "max_bytes_per_trigger": max_bytes},
    )
