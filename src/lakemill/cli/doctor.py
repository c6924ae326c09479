"""``lakemill doctor``: what this machine and a job have, what they lack, and what to do about it.

Nothing of a model, of a table's data or of a job's own code is imported or run: packages are looked up, files are
listed, a registry is asked whether it is there.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit

from lakemill import __version__
from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.spark import environment
from lakemill.engines.spark.delta_jars import cache_folder
from lakemill.pipelines import registry
from lakemill.predict.before_engine import local_models
from lakemill_udfs.errors import LakemillError
from lakemill_udfs.files import filesystem
from lakemill_udfs.masking import masked

ANSWER_SECONDS = 10.0
"""How long a registry or a store may take to answer."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        state: ``right``; ``missing`` is not there and may not be needed; ``wrong`` stops jobs.
        subject: What was looked at.
        says: What was found.
        do: What to do about it; None where there is nothing to do.
    """

    state: Literal["right", "missing", "wrong"]
    subject: str
    says: str
    do: str | None = None

    def line(self) -> str:
        """Return it as one line, masked."""
        return masked(f"{self.state:<8} {self.subject}: {self.says}" + (f" -> {self.do}" if self.do else ""))

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {name: value and masked(value) for name, value in asdict(self).items()}


def examine(config: PredictConfig | None = None, registry_uri: str | None = None) -> Iterator[Finding]:
    """Yield what is found about this machine and, if one is given, about a job.

    Args:
        config: A predict job, whose tables, models and registry are looked for too.
        registry_uri: MLflow registry to ask; by default the job's, or the environment's.
    """
    yield _python()
    yield from _spark(is_needed=config is not None and _needs_spark(config))
    yield from _packages()
    uri = registry_uri or (config.registry if config else None) or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        yield _tried(f"registry {uri}", lambda: _registry(uri), "check its address, the network and your sign-in")
    if config is not None:
        yield from _job(config)


def _python() -> Finding:
    says = f"Python {sys.version.split()[0]}, lakemill {__version__}, {os.cpu_count()} cores"
    return Finding("right", "python", f"{says}, {shutil.disk_usage(Path.cwd()).free / 1e9:,.0f} GB free here")


def _needs_spark(config: PredictConfig) -> bool:
    """Return whether a job says that it runs on Spark, or names what only Spark opens."""
    tables = (config.source.table, config.output.table)
    return config.engine.name == "spark" or not all(table_names.is_path(table) for table in tables)


def _spark(*, is_needed: bool) -> Iterator[Finding]:
    """Yield what there is of Spark and Java; without them the local engine works all the same."""
    try:
        spark, delta = environment.installed_versions()
    except LakemillError as error:
        yield _lacking(Finding("wrong", "spark", error.message, error.hint), is_needed=is_needed)
        return
    try:
        jars = environment.check_versions(spark, delta)
        yield Finding("right", "spark", f"pyspark {spark} with Delta {jars}")
        is_there = (cache_folder() / f"delta-{jars}-spark-{spark}").is_dir()
        says = (
            f"in {cache_folder()}"
            if is_there
            else "the first local session fetches them, 13 MB, from a Maven repository"
        )
        yield Finding("right" if is_there else "missing", "delta's jars", says)
    except LakemillError as error:
        yield _lacking(Finding("wrong", "spark", error.message, error.hint), is_needed=is_needed)
    for subject, check in (("java", environment.check_java), ("workers' python", _worker_python)):
        yield _lacking(_tried(subject, check, None), is_needed=is_needed)


def _lacking(found: Finding, *, is_needed: bool) -> Finding:
    """Return a finding about Spark; what is wrong there stops no job that does not need Spark."""
    if is_needed or found.state != "wrong":
        return found
    says = f"{found.says.rstrip('.')}; only jobs on Spark need it, the local engine does not"
    return Finding("missing", found.subject, says, found.do)


def _worker_python() -> str:
    environment.choose_worker_python()
    return os.environ["PYSPARK_PYTHON"]


def _packages() -> Iterator[Finding]:
    """Yield whether the packages of the base and of each extra are installed; none of them is imported."""
    wanted: dict[str, list[str]] = {}
    for requirement in _requirements():
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and not (extra and extra[1] in ("all", "dev", "spark")):
            wanted.setdefault(extra[1] if extra else "", []).append(name[0])
    for kind, packages in wanted.items():
        subject = f"extra {kind}" if kind else "packages"
        found = {package: _version(package) for package in packages}
        lacking = [package for package, number in found.items() if number is None]
        if lacking:
            how = f"pip install 'lakemill[{kind}]'" if kind else "pip install lakemill"
            yield Finding("missing" if kind else "wrong", subject, f"{', '.join(lacking)} not installed", how)
        else:
            yield Finding("right", subject, ", ".join(f"{name} {number}" for name, number in found.items()))


def _requirements() -> list[str]:
    try:
        return requires("lakemill") or []
    except PackageNotFoundError:  # it runs from a zip, as on executors
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _registry(uri: str) -> str:
    """Ask a registry whether it is there.

    Raises:
        OSError: it is not.
    """
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        file = Path(uri.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            models = connection.execute("SELECT count(*) FROM registered_models").fetchone()[0]
        return f"{models} registered models"
    if parts.scheme in ("http", "https"):
        bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/health"
        try:
            with urllib.request.urlopen(bare, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 -- http and https only
                return f"answers ({answer.status})"
        except HTTPError as error:  # it is there, and wants a sign-in that MLflow makes
            return f"answers ({error.code})"
    if parts.scheme in ("", "file"):
        folder = Path(parts.path)
        return "a folder" if folder.is_dir() else _no(f"there is no folder '{folder}'")
    return f"not asked: only MLflow itself opens {parts.scheme}://"


def _job(config: PredictConfig) -> Iterator[Finding]:
    source, output = config.source.table, config.output.table
    yield _tried(f"source {source}", lambda: _table(source), "lakemill ingest makes a table of images")
    yield _tried(f"output {output}", lambda: _writable(output), "check the path and its permissions")
    for uri in local_models(config.pipeline):
        yield _tried(f"model {uri}", lambda uri=uri: str(registry.find(uri).path), None)  # type: ignore[misc]  # mypy: a default


def _table(table: str) -> str:
    if not table_names.is_path(table):
        return "a catalog name: the engine looks it up"
    commits = DeltaLog(table_names.location(table)).commit_files()
    if not commits:
        raise table_names.not_found(table)
    return f"a Delta table, {len(commits)} commits in its log"


def _writable(table: str) -> str:
    if not table_names.is_path(table):
        return "a catalog name: the engine looks it up"
    if table_names.SCHEME.match(table):
        store, folder = filesystem(table_names.location(table))
        return f"{store.type_name} answers ({store.get_file_info(folder).type.name}); writing is not tried"
    place = Path(table_names.location(table))
    while not place.exists():
        place = place.parent
    return f"{place} is writable" if os.access(place, os.W_OK) else _no(f"{place} is not writable")


def _no(why: str) -> str:
    raise OSError(why)


def _tried(subject: str, look: Callable[[], str], do: str | None) -> Finding:
    """Return what a look found, at the latest after ``ANSWER_SECONDS``."""
    found: list[Finding] = []

    def call() -> None:
        try:
            found.append(Finding("right", subject, look()))
        except LakemillError as error:
            found.append(Finding("wrong", subject, error.message, error.hint))
        except (OSError, sqlite3.Error) as error:
            found.append(Finding("wrong", subject, f"{type(error).__name__}: {error}", do))

    looking = threading.Thread(target=call, daemon=True)  # one that hangs must not keep the process
    looking.start()
    looking.join(ANSWER_SECONDS)
    return found[0] if found else Finding("wrong", subject, f"no answer in {ANSWER_SECONDS:.0f} s", do)
