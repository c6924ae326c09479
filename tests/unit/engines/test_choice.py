"""Which engine a job gets, and what it says of it; no engine is started."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill.config.base import EngineChoice
from lakemill.engines import choice
from lakemill.engines.choice import choose
from lakemill.engines.needs import Needs
from lakemill.engines.spark.presence import STARTED_BY
from lakemill_udfs.errors import ConfigError, LakemillError

LOCAL, SPARK = EngineChoice(name="local"), EngineChoice(name="spark")


@pytest.fixture(autouse=True)
def _no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a session that other tests of this process started, and what starts one."""
    for variable in STARTED_BY:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("lakemill.engines.spark.presence._is_active", lambda: False)


@pytest.fixture
def table(tmp_path: Path) -> str:
    write_deltalake(tmp_path / "t", pa.table({"path": ["a"], "number": [1]}))
    return str(tmp_path / "t")


def test_auto_is_local_where_nothing_needs_spark(table: str, tmp_path: Path) -> None:
    needs = Needs("j", (table,), (f"{tmp_path}/out",), "number > 0")
    assert choose(None, needs).line() == "engine: local, as nothing here needs Spark"
    assert choose(None, needs, SPARK).line() == "engine: spark, as the job says"


@pytest.mark.parametrize("variable", STARTED_BY)
def test_auto_is_spark_where_something_starts_it(table: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    assert choose(None, Needs("j", (table,))).line() == f"engine: spark, as {STARTED_BY[variable]}"
    assert choose(None, Needs("j", (table,)), LOCAL).name == "local"


def needs_of(kind: str, table: str) -> Needs:
    """Return needs of which one is beyond the local engine."""
    if kind == "constraint":
        DeltaTable(table).alter.add_constraint({"positive": "number > 0"})
        return Needs("j", writes=(table,))
    if kind == "catalog":
        return Needs("j", (table,), ("main.default.predictions",))
    if kind == "columns":
        return Needs("j", (table,), columns="label string, more array<int>")
    return Needs("j", (table,), where="soundex(path) = 'A000'")


@pytest.mark.parametrize("kind", ["constraint", "catalog", "soundex", "columns"])
def test_what_local_cannot_do_is_spark_s_with_the_reason_or_a_refusal(
    kind: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = needs_of(kind, table)
    chosen = choose(None, needs)
    assert chosen.name == "spark"
    assert kind in chosen.line()
    assert "\n" not in chosen.line()
    with pytest.raises(LakemillError, match=r"^\[ENGINE_LOCAL\] .* Hint: "):
        choose(None, needs, LOCAL)
    monkeypatch.setattr(choice, "is_installed", lambda: False)
    with pytest.raises(LakemillError, match=r"^\[ENGINE_LOCAL\] "):
        choose(None, needs)


def test_what_no_engine_could_do_is_no_reason(table: str, tmp_path: Path) -> None:
    """The run says it, on the engine that it would have had."""
    assert choose(None, Needs("j", (table,), version=99)).name == "local"
    assert choose(None, Needs("j", (f"{tmp_path}/none",))).name == "local"


def test_a_session_is_not_given_to_the_local_engine(table: str) -> None:
    with pytest.raises(ConfigError, match="ENGINE_LOCAL"):
        choose(object(), Needs("j", (table,)), LOCAL)  # type: ignore[arg-type]  # any session
