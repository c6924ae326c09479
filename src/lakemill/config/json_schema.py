"""The JSON schema of a job's YAML, for editors; and which keys there are where, for messages.

Descriptions are the ``Args`` of the classes' docstrings, so that a key is explained in one place.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VARIABLE = {"description": "A variable of the environment.", "pattern": r"\$\{\w+(:-[^}]*)?\}", "type": "string"}
ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
DEEPEST = 5  # keys below each other: pipeline.steps.image.column is four


@cache
def job_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a job's YAML file.

    Args:
        model: ``PredictConfig``, ``IngestConfig`` or ``TransformConfig``.
    """
    schema = model.model_json_schema()
    # What all jobs have stands in their base's docstring; a job may be a part of another one.
    shared = _arguments(model.__base__.__doc__ or "") if model.__base__ else {}
    for part in [schema, *schema.get("$defs", {}).values()]:
        docstring = part.pop("description", "")
        told = shared | _arguments(docstring)
        for name, inner in part.get("properties", {}).items():
            inner.pop("title", None)  # the key's own name once more
            _allow_variable(inner)
            if name in told:
                inner["description"] = told[name]
        if docstring:
            part["description"] = _prose(docstring.partition("\n\n")[0])
    schema.setdefault("$defs", {})["Variable"] = VARIABLE
    return {"$schema": DIALECT, **schema}


def _allow_variable(part: dict[str, Any]) -> None:
    """Let a number, a truth value or one of several words be ``${VAR}`` too."""
    if "enum" in part or part.get("type") in ("integer", "number", "boolean"):
        core = {key: part.pop(key) for key in list(part) if key not in ("default", "description")}
        part["anyOf"] = [core]
    elif not any(branch.get("type") != "null" and "$ref" not in branch for branch in part.get("anyOf", ())):
        return
    part["anyOf"].append({"$ref": "#/$defs/Variable"})


def _arguments(docstring: str) -> dict[str, str]:
    """Return what the first ``Args`` of a docstring say of each name."""
    arguments = inspect.cleandoc(docstring).partition("\nArgs:\n")[2].partition("\n\n")[0]
    return {name: _prose(text) for name, text in ARGUMENT.findall(arguments)}


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys that a job's YAML may have below ``path``, for example below ``("engine",)``."""
    schema = job_schema(model)
    parts = [schema]
    for step in path:
        parts = [inner for part in parts for inner in _below(part, step, schema["$defs"])]
    return list(dict.fromkeys(key for part in parts for key in part.get("properties", {})))


def all_keys(model: type[BaseModel]) -> list[str]:
    """Return the dotted name of every key of a job's YAML, those near the top first."""
    schema = job_schema(model)

    def walk(part: Mapping[str, Any], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, inner in part.get("properties", {}).items():
            yield (*prefix, key)
            if len(prefix) < DEEPEST:
                for branch in _branches(inner, schema["$defs"]):
                    yield from walk(branch, (*prefix, key))
                    for item in _branches(branch.get("items", {}), schema["$defs"]):
                        yield from walk(item, (*prefix, key))

    found = dict.fromkeys(walk(schema, ()))
    return [".".join(path) for path in sorted(found, key=lambda path: ("ingest" in path, len(path)))]


def _below(part: Mapping[str, Any], step: str | int, definitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    inner = part.get("items", {}) if isinstance(step, int) else part.get("properties", {}).get(step, {})
    return list(_branches(inner, definitions))


def _branches(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in part:
        yield from _branches(definitions[part["$ref"].rpartition("/")[2]], definitions)
        return
    yield dict(part)
    for branch in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())):
        yield from _branches(branch, definitions)
