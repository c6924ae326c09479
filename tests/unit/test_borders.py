"""The borders of the design, as code: what imports what, what importing costs, and how long a module may be."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
UDFS = sorted((ROOT / "udfs/lakemill_udfs").glob("**/*.py"))
LIBRARY = sorted((ROOT / "src/lakemill").glob("**/*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 400, 50  # lines; a function's without its docstring
DRIVER_ONLY = {"pyspark", "delta", "pydantic", "lakemill"}
INSIDE_MLFLOW = {"logged_pipeline"}  # the file that MLflow runs when it loads a pipeline: its base class is MLflow's
ROOMS = (  # of src/lakemill, from the top down: a room imports only rooms below it
    "cli",
    "demo",
    "plan",
    "report",
    "predict",
    "transform",
    "ingest",
    "training",
    "pipelines",
    "in_process",
    "engines",
    "config",
)
SPARK_IN = ("engines/spark", "pipelines")  # the rooms that name pyspark: the engine, and pipelines on DataFrames
SPARK_ALSO_IN = (  # the session's type for the rooms above and for scripts; DataFrames to train on
    "engines/choice.py",
    "training/frames.py",
    "training/distributed.py",
)
SLOW = {"pyspark", "mlflow", "pandas", "torch", "tensorflow", "sklearn", "onnxruntime"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """Return the dotted name of a module of either source root."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Return the top-level names that a module imports anywhere, inside functions and type checks too."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    absolute = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {module.split(".")[0] for module in plain | absolute}


def ours(path: Path, names: Collection[str]) -> set[str]:
    """Return which modules of the two roots a module imports, inside functions too, but not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = [node for node in ast.walk(tree) if id(node) not in for_types]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {
        name if (name := f"{node.module}.{alias.name}") in names else str(node.module)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return (plain | parts) & set(names) - {module(path)}


def strings(path: Path) -> Iterator[str]:
    """Yield the strings of a module, and the fixed parts of formatted ones."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the functions of a module and their lines without the docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield node.name, lines - len((ast.get_docstring(node, clean=False) or "").splitlines())


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    script = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("path", UDFS, ids=name)
def test_executor_code_imports_nothing_of_the_driver(path: Path) -> None:
    assert imports(path) & DRIVER_ONLY == set()


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.parent.name != "lakemill"], ids=name)
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    names = {module(other) for other in LIBRARY}
    here = module(path).split(".")[1]
    above = ROOMS[: ROOMS.index(here)]
    wrong = sorted(other for other in ours(path, names) if other.count(".") and other.split(".")[1] in above)
    assert not wrong, f"{name(path)} is in {here}, below {wrong}: pass in a value or a callable, or move what both need"


def test_no_import_runs_in_a_circle() -> None:
    """What two modules need of each other is a third thing."""
    names = {module(path) for path in (*UDFS, *LIBRARY)}
    graph = {module(path): ours(path, names) for path in (*UDFS, *LIBRARY)}
    graphlib.TopologicalSorter(graph).prepare()  # its error names the circle


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_its_engine_names_an_engine_s_library(path: Path) -> None:
    place = str(path.relative_to(ROOT / "src/lakemill"))
    if not place.startswith((*SPARK_IN, *SPARK_ALSO_IN)):
        assert "pyspark" not in imports(path), f"{place}: ask the engine; only {SPARK_IN} know Spark"
    if not place.startswith("engines/local"):
        assert "deltalake" not in imports(path), f"{place}: ask the engine; only engines/local knows delta-rs"


@pytest.mark.parametrize("path", [*UDFS, *LIBRARY], ids=name)
def test_one_module_reads_a_table_s_log(path: Path) -> None:
    opened = [text for text in strings(path) if re.search(r"(^|/)_delta_log", text)]
    assert not opened or path.name == "delta_log.py", f"{name(path)}: ask engines/delta_log.py for what is in {opened}"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_imports_no_job(path: Path) -> None:
    assert not imports(path) & ({"jobs", "tests"} | {job.stem for job in JOBS})


def test_executor_code_loads_nothing_of_the_driver() -> None:
    modules = ", ".join(module(path) for path in UDFS if path.stem not in INSIDE_MLFLOW)
    assert loaded_after(f"import {modules}") & (DRIVER_ONLY | SLOW) == set()


@pytest.mark.parametrize("module", ["lakemill", "lakemill.cli.app"])
def test_starting_is_instant(module: str) -> None:
    assert loaded_after(f"import {module}") & SLOW == set()


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_a_job_hides_no_module(path: Path) -> None:
    """spark-submit puts jobs/ first on sys.path: a script named as a module would be imported in its place."""
    assert path.stem not in sys.stdlib_module_names
    assert path.stem not in packages_distributions()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_databricks_source_and_valid_python(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Databricks notebook source\n")
    compile(text, path.name, "exec")


@pytest.mark.parametrize("path", [*UDFS, *LIBRARY, *JOBS], ids=name)
def test_a_reader_can_hold_a_module_in_mind(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE
    assert not [(function, lines) for function, lines in functions(path) if lines > LONGEST_FUNCTION]


def test_spark_conf_and_the_library_agree() -> None:
    """conf/spark.conf says for spark-submit what the library does for a local session."""
    from lakemill.engines.spark.delta_jars import HAD_BY_SPARK
    from lakemill.engines.spark.environment import DELTA_JARS
    from lakemill.engines.spark.session import DELTA_SETTINGS

    lines = (line.split(None, 1) for line in (ROOT / "conf/spark.conf").read_text().splitlines() if line[:1] not in "#")
    settings = {key: value.strip() for key, value in lines}
    ((minor, jars),) = DELTA_JARS.items()
    assert settings.items() >= DELTA_SETTINGS.items()
    assert settings["spark.jars.excludes"] == ",".join(f"{group}:*" for group in HAD_BY_SPARK)
    assert settings["spark.jars.packages"] == f"io.delta:delta-spark_{minor}_2.13:{jars}"


def test_only_the_table_of_flavors_knows_the_runtimes() -> None:
    """A new framework is one module in ``models`` and one line in its table."""
    from lakemill_udfs.models.flavors import RUNTIMES

    table = ROOT / "udfs/lakemill_udfs/models/flavors.py"
    others = [path for path in (*UDFS, *LIBRARY) if path != table and path.stem not in RUNTIMES.values()]
    names = {*RUNTIMES.values(), ".flavor ==", ".flavor !="}
    assert not [(name(path), known) for path in others for known in names if known in path.read_text(encoding="utf-8")]


def test_the_extras_allow_what_goes_together_and_the_lock_says_what_is_tested() -> None:
    from lakemill.engines.spark.environment import DELTA_JARS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["spark"]
    allowed = {requirement.name: requirement.specifier for requirement in map(Requirement, extras)}
    locked = dict(
        re.findall(r"^(pyspark|delta-spark)==([\w.]+)", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    )
    ((minor, jars),) = DELTA_JARS.items()
    assert all(allowed[package].contains(version) for package, version in locked.items())
    assert allowed["pyspark"].contains(f"{minor}.99")
    assert not allowed["pyspark"].contains("4.3.0")
    assert allowed["delta-spark"].contains(jars)
    assert not allowed["delta-spark"].contains("4.5.0")
