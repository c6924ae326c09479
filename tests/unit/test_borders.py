"""The borders of the design, as code: what imports what, what importing costs, and how long a module may be."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path
from typing import get_args

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
LOOP, GROUND = "the loop", "the ground"
UDFS_ROOMS = (LOOP, "images", "steps", "models", "tensors", GROUND)  # of udfs/lakemill_udfs, in the same way
ON_THE_GROUND = {"arguments", "errors", "failures", "files", "masking", "own_files"}  # modules beside the loop's
SPARK_IN = ("engines/spark", "pipelines")  # the rooms that name pyspark: the engine, and pipelines on DataFrames
SPARK_ALSO_IN = (  # the session's type for the rooms above and for scripts; DataFrames to train on
    "engines/choice.py",
    "training/frames.py",
    "training/barrier.py",
    "training/distributed.py",
    "training/rank.py",
    "training/scans.py",
)
FACE = ROOT / "src/lakemill/__init__.py"
PUBLIC = (  # what a user of lakemill imports from there, beside the classes of errors
    *("Pipeline", "ImageStep", "ModelStep", "PythonStep", "FormatStep", "Check", "TensorSpec"),
    *("PredictConfig", "IngestConfig", "ingest_images", "predict_table", "predict_stream", "get_session"),
)
SLOW = {"pyspark", "mlflow", "pandas", "torch", "tensorflow", "sklearn", "onnxruntime"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def module(path: Path) -> str:
    """Return the dotted name of a module of either source root."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(dotted: str) -> str:
    """Return the room that a module of either source root is in."""
    root, *parts = dotted.split(".")
    if root == "lakemill" or len(parts) > 1 or (parts and parts[0] in UDFS_ROOMS):
        return parts[0] if parts else GROUND
    return GROUND if not parts or parts[0] in ON_THE_GROUND else LOOP


def imported(nodes: Iterable[ast.AST], names: Collection[str] = ()) -> dict[str, int]:
    """Return what is imported anywhere in a module, inside functions too, with the line.

    Args:
        nodes: The module's.
        names: Modules that are named whole, where ``from a import b`` imports ``a.b``.
    """
    found: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.setdefault(whole if whole in names else node.module, node.lineno)
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the tree of a module, which is nobody's to change."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(path)))


def imports(path: Path) -> dict[str, int]:
    """Return the top-level names that a module imports, for types too, each with its line."""
    return {module.split(".")[0]: line for module, line in imported(nodes(path)).items()}


def ours(path: Path, names: Collection[str]) -> dict[str, int]:
    """Return which modules of the two roots a module imports, each with its line, but not those for types alone."""
    for_types = {
        inner
        for node in nodes(path)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = imported((node for node in nodes(path) if node not in for_types), names)
    return {other: line for other, line in found.items() if other in names and other != module(path)}


def climbs(path: Path, files: Collection[Path], rooms: tuple[str, ...]) -> str:
    """Return the lines of a module that import a room above its own, each with what to do."""
    names, here = {module(other) for other in files}, room(module(path))
    return "\n".join(
        f"{name(path)}:{line} imports {other}: {room(other)} is above {here}. Pass in a value or a callable, or move "
        f"what both need to a room below; the table of rooms is in {name(Path(__file__))}."
        for other, line in ours(path, names).items()
        if room(other) in rooms[: rooms.index(here)]
    )


def strings(path: Path) -> Iterator[str]:
    """Yield the strings of a module, and the fixed parts of formatted ones."""
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the functions of a module, each with its place, and their lines without the docstring."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
            yield f"{name(path)}:{node.lineno} {node.name}", lines - docstring


@functools.cache
def installed_modules() -> set[str]:
    return set(packages_distributions())


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    script = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("path", UDFS, ids=name)
def test_executor_code_imports_nothing_of_the_driver(path: Path) -> None:
    found = imports(path)
    wrong = [f"{name(path)}:{found[other]} imports {other}" for other in sorted(found.keys() & DRIVER_ONLY)]
    assert not wrong, f"{wrong}: workers have none of it; let the driver find the value and put it into the plan"


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.parent.name != "lakemill"], ids=name)
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    wrong = climbs(path, LIBRARY, ROOMS)
    assert not wrong, wrong


@pytest.mark.parametrize("path", UDFS, ids=name)
def test_a_worker_s_room_imports_only_rooms_below_it(path: Path) -> None:
    wrong = climbs(path, UDFS, UDFS_ROOMS)
    assert not wrong, wrong


def test_no_import_runs_in_a_circle() -> None:
    """What two modules need of each other is a third thing."""
    names = {module(path) for path in (*UDFS, *LIBRARY)}
    graph = {module(path): ours(path, names) for path in (*UDFS, *LIBRARY)}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        lines = [f"{one}, line {graph[one][other]}, imports {other}" for other, one in pairwise(error.args[1])]
        pytest.fail("move what both need to a third module, or pass in a value or a callable:\n" + "\n".join(lines))


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_its_engine_names_an_engine_s_library(path: Path) -> None:
    place, found = str(path.relative_to(ROOT / "src/lakemill")), imports(path)
    if not place.startswith((*SPARK_IN, *SPARK_ALSO_IN)):
        assert "pyspark" not in found, f"{name(path)}:{found['pyspark']}: ask the engine; only {SPARK_IN} know Spark"
    if not place.startswith("engines/local"):
        assert "deltalake" not in found, f"{name(path)}:{found['deltalake']}: only engines/local knows delta-rs; ask it"


@pytest.mark.parametrize("path", [*UDFS, *LIBRARY], ids=name)
def test_one_module_reads_a_table_s_log(path: Path) -> None:
    opened = [text for text in strings(path) if re.search(r"(^|/)_delta_log", text)]
    assert not opened or path.name == "delta_log.py", f"{name(path)}: ask engines/delta_log.py for what is in {opened}"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_no_room_goes_through_the_face(path: Path) -> None:
    """``lakemill`` hands on names of every room: through it, a room would reach those above it unseen."""
    import lakemill

    taken = {
        f"{name(path)}:{node.lineno} imports {alias.name} from lakemill: name its module"
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module == "lakemill"
        for alias in node.names
        if alias.name in lakemill.__all__
    }
    assert not taken, sorted(taken)


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_imports_no_job(path: Path) -> None:
    assert not imports(path).keys() & ({"jobs", "tests"} | {job.stem for job in JOBS})


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
    assert path.stem not in installed_modules()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_databricks_source_and_valid_python(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Databricks notebook source\n")
    compile(text, path.name, "exec")


@pytest.mark.parametrize("path", [*UDFS, *LIBRARY, *JOBS], ids=name)
def test_a_reader_can_hold_a_module_in_mind(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE, f"{name(path)} has {lines} lines: give what stands by itself in it a module"
    long = [f"{function} has {lines} lines" for function, lines in functions(path) if lines > LONGEST_FUNCTION]
    assert not long, f"{long}: {LONGEST_FUNCTION} fit on a screen; give its parts names"


def test_the_map_has_every_room_and_names_what_is_in_it() -> None:
    """``docs/architecture.md``: a paragraph a room, in the table's words, naming modules that are there."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    paragraphs = re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=^- |^#)", page, re.MULTILINE | re.DOTALL)
    named = {one.lower(): text for rooms, text in paragraphs for one in rooms.split(", ")}
    assert named.keys() == {*ROOMS, *UDFS_ROOMS}, "docs/architecture.md has a paragraph for each room of the tables"
    inside = {one: {path.name for path in (*UDFS, *LIBRARY) if room(module(path)) == one} for one in named}
    gone = {(one, file) for one, text in named.items() for file in re.findall(r"`(\w+\.py)`", text)}
    gone = {(one, file) for one, file in gone if file not in inside[one]}
    assert not gone, f"docs/architecture.md names {sorted(gone)}, which are not in these rooms"
    files = [name(path) for path in (*UDFS, *LIBRARY)]
    places = re.findall(r"`((?:\w+/)+\w+\.py)`", page.partition("## Where do I change")[2])
    lost = [place for place in places if not any(file.endswith(f"/{place}") for file in files)]
    assert places, "the table of changes names files"
    assert not lost, f"docs/architecture.md, where do I change: {lost} are not there"


def test_a_mode_is_configured_and_defined() -> None:
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.modes import MODES

    assert set(get_args(PredictConfig.model_fields["mode"].annotation)) == MODES.keys()


def test_public_names_are_importable_from_lakemill() -> None:
    import lakemill
    from lakemill_udfs import errors

    classes = {one for one, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {*PUBLIC, *classes} <= set(lakemill.__all__)
    assert [one for one in lakemill.__all__ if getattr(lakemill, one).__name__ != one] == []
    typed = [alias.name for node in nodes(FACE) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert set(lakemill.__all__) <= set(typed), f"{name(FACE)}: type checkers see what is imported under TYPE_CHECKING"


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
