"""An MLflow registry that is one SQLite file, asked without MLflow, which takes longer to import than a run may take.

Only the plain case is answered: one version in the default workspace, its files on this machine. Whatever else there
is (no such alias, another form of the tables, a file that is locked) is MLflow's to answer, and to find the words for.
The tables are those of ``mlflow.store.model_registry.dbmodels.models``.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

PREFIX = "sqlite:///"

LOCK_SECONDS = 1.0
"""How long a file that somebody writes to is waited for, before MLflow is asked."""


@dataclass(frozen=True)
class Registered:
    """One version of a registered model.

    Args:
        version: Its number.
        path: The folder with its files.
        tags: Of the version.
    """

    version: str
    path: Path
    tags: dict[str, str]


def registry_uri(registry: str | None) -> str:
    """Return the registry that MLflow would ask, before anything was set in it; empty for its own default."""
    return registry or os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or ""


def registered(name: str, version: str | None, alias: str | None, registry: str | None) -> Registered | None:
    """Return a version of a model, by its number or an alias; None if MLflow must be asked.

    Args:
        name: Registered name.
        version: Its number; None with an alias.
        alias: None with a number.
        registry: As of ``registry_uri``.
    """
    where = registry_uri(registry)
    file = where.removeprefix(PREFIX)
    if "mlflow" in sys.modules or file == where or "?" in file or "MLFLOW_WORKSPACE" in os.environ:
        return None
    try:
        with closing(sqlite3.connect(f"{Path(file).absolute().as_uri()}?mode=ro", LOCK_SECONDS, uri=True)) as database:
            database.row_factory = sqlite3.Row
            return _registered(database, name, version, alias)
    except sqlite3.Error:
        return None


def _registered(database: sqlite3.Connection, name: str, version: str | None, alias: str | None) -> Registered | None:
    if alias is not None:
        found = _only(database, "SELECT * FROM registered_model_aliases WHERE name = ? AND alias = ?", name, alias)
        version = None if found is None else str(found["version"])
    if version is None or not version.isdigit():
        return None
    model = _only(database, "SELECT * FROM model_versions WHERE name = ? AND version = ?", name, int(version))
    path = None if model is None else _local(str(model["storage_location"] or model["source"]))
    if model is None or path is None or model["current_stage"] == "Deleted_Internal":
        return None
    tags = database.execute("SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", (name, version))
    return Registered(str(int(version)), path, {str(key): str(value) for key, value in tags})


def _only(database: sqlite3.Connection, query: str, *values: object) -> sqlite3.Row | None:
    """Return the one row of a query, if it is of the default workspace (an older MLflow knows no others)."""
    rows: list[sqlite3.Row] = database.execute(query, values).fetchall()
    if len(rows) != 1 or ("workspace" in rows[0].keys() and rows[0]["workspace"] != "default"):  # noqa: SIM118 -- a Row iterates over its values
        return None
    return rows[0]


def _local(location: str) -> Path | None:
    """Return the folder of a model with an ``MLmodel`` file that a location on this machine's disk stands for."""
    parts = urlsplit(location)
    path = (
        Path(url2pathname(parts.path))
        if parts.scheme == "file" and parts.netloc in ("", "localhost")
        else Path(location)
    )
    return path if path.is_absolute() and (path / "MLmodel").is_file() else None
