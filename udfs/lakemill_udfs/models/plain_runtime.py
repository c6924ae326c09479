"""What a runtime offers that has nothing of its own to add; its module takes these functions over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def options(described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given."""
    return dict(given)


def native(path: Path, options: Mapping[str, Any]) -> Any:
    """Return None: the framework has no object of its own, or none that MLflow logs."""
    return None


def write(value: Any, folder: Path) -> Path | None:
    """Return None: no Python object is such a model."""
    return None


def log(value: Any, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Return None: it is logged as a pipeline of one step."""
    return None


def class_root(value: Any) -> str:
    """Return the package of an object's class: ``sklearn``, ``xgboost``."""
    return type(value).__module__.partition(".")[0]
