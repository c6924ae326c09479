"""What a model's ``MLmodel`` file says, checked as a job's YAML is: a stranger may have written it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from lakemill.config.base import parse_yaml, validate
from lakemill.config.predict import PipelineConfig
from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.models.content import check_paths
from lakemill_udfs.pipeline import Pipeline

Kind = TypeVar("Kind", bound=BaseModel)


class _Artifact(BaseModel):
    path: str


class _PythonFunction(BaseModel):
    loader_module: str = ""
    artifacts: dict[str, _Artifact] | None = None


class _Flavors(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, dict[str, Any]]
    python_function: _PythonFunction | None = None


class _Noted(BaseModel):
    inputs: dict[str, dict[str, Any]] = {}
    outputs: dict[str, dict[str, Any]] = {}
    options: dict[str, Any] = {}


class _Metadata(BaseModel):
    lakemill_model: _Noted | None = None


class _Described(BaseModel):
    """The parts that Lakemill reads itself; what a runtime reads, it checks."""

    flavors: _Flavors | None = None
    metadata: _Metadata | None = None


def read_mlmodel(path: Path) -> dict[str, Any]:
    """Return the content of a folder's ``MLmodel`` file.

    Raises:
        ModelError: ``MODEL_PATH`` if it names a path outside its folder, ``MODEL_LOAD`` if it cannot be read.
    """
    try:
        raw = parse_yaml((path / "MLmodel").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError("MODEL_LOAD", f"the MLmodel file of '{path.name}' is no YAML.") from error
    if not isinstance(raw, dict):
        raise ModelError("MODEL_LOAD", f"the MLmodel file of '{path.name}' describes no model.")
    checked(_Described, raw, path.name)
    check_paths(raw, path.name)
    return raw


def logged_pipeline(raw: Any, name: str) -> Pipeline:
    """Return the pipeline that an ``MLmodel`` file holds.

    Raises:
        ModelError: ``MODEL_LOAD`` if it is none.
    """
    return checked(PipelineConfig, raw, name).declared()


def checked(kind: type[Kind], raw: Any, name: str) -> Kind:
    """Return a part of an ``MLmodel`` file as what it must be.

    Raises:
        ModelError: ``MODEL_LOAD``.
    """
    try:
        return validate(kind, raw if isinstance(raw, Mapping) else {}, where=f"the MLmodel file of '{name}'")
    except ConfigError as error:
        raise ModelError(
            "MODEL_LOAD", error.message, hint="log the model again; what a newer version logged needs that version."
        ) from None
