"""Reading a job's configuration: YAML by a safe loader, ``--set a.b=c`` on top, ``${VAR}`` replaced, then checked.

Every problem is one ``ConfigError`` that names the key, what was expected and what was got; an unknown key names the
closest known one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

from lakemill.config.messages import describe
from lakemill.config.variables import expand
from lakemill_udfs.errors import ConfigError

UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_bytes(value: object) -> object:
    """Return ``64MiB`` as a number of bytes; numbers pass as they are."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
    if not match or match[2].lower() not in UNITS:
        raise ValueError(f"'{value}' is no size; write a number of bytes or 512KiB, 64MiB, 2GiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]
"""A size in bytes, written as a number or as ``64MiB``."""


SECONDS = {"second": 1, "minute": 60, "hour": 3600}


def interval_seconds(trigger: str, *, once: str) -> int | None:
    """Return ``1 minute`` in seconds, and None for ``once``.

    Args:
        trigger: An interval, or the word for a single run.
        once: That word.

    Raises:
        ValueError: ``trigger`` is neither.
    """
    if trigger == once:
        return None
    match = re.fullmatch(r"([1-9]\d*) (second|minute|hour)s?", trigger.strip())
    if not match:
        raise ValueError(f"'{trigger}' is no trigger; write {once}, or an interval such as 30 seconds or 1 minute")
    return int(match[1]) * SECONDS[match[2]]


LONGEST_NAME = 128
NAME = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 _.-]{0,126}[A-Za-z0-9_-])?")
"""A job's name, which is also a folder's: no slash, no dot or space at either end, at most ``LONGEST_NAME`` letters."""

LOCK_SUFFIX = ".lock"
"""Ends the lock file that stands beside a checkpoint, so no job's name ends with it."""


def is_job_name(name: str) -> bool:
    """Return whether ``name`` may name a job, and so its checkpoint's folder."""
    return NAME.fullmatch(name) is not None and not name.lower().endswith(LOCK_SUFFIX)


class Strict(BaseModel):
    """Base of all configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineChoice(Strict):
    """Where a job runs.

    Args:
        name: ``local`` is this machine's processes, without Java; ``spark`` is Spark; ``auto`` takes Spark where there
            is a session, or something that only Spark can do, and else ``local``.
        workers: Of the local engine: ``threads`` share one copy of a model, ``processes`` have one each; ``auto``
            chooses by what the job does.
    """

    name: Literal["auto", "local", "spark"] = "auto"
    workers: Literal["auto", "threads", "processes"] = "auto"


class JobConfig(Strict):
    """What every job's configuration has.

    Args:
        name: Names the job in tables, logs and Delta's transactions, and its checkpoint's folder: at most 128 of
            ``A-Z a-z 0-9 _ - .`` and spaces, with no dot or space at either end, and not ending in ``.lock``.
        registry: MLflow tracking and registry URI; without it MLflow's own settings hold.
    """

    name: str = "lakemill"
    registry: str | None = None

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not is_job_name(name):
            raise ValueError(
                f"{name[:LONGEST_NAME]!r} cannot name a job: write at most {LONGEST_NAME} of A-Z a-z 0-9 _ - . and "
                f"spaces, with no dot or space at either end, and not ending in {LOCK_SUFFIX}"
            )
        return name

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Sequence[str] = (), **values: Any) -> Self:
        """Read a YAML file, lay ``overrides`` (``a.b=c``) and ``values`` over it, and check the result.

        ``${VAR}`` and ``${VAR:-default}`` in a value are replaced from the environment.

        Args:
            path: A YAML file, or None to start empty.
            overrides: ``key.path=value`` texts; the value is read as YAML.
            values: Top-level sections or dotted keys (``source__table``); None is left out.

        Raises:
            ConfigError: ``CONFIG_NOT_FOUND``, ``CONFIG_YAML``, ``CONFIG_OVERRIDE``, ``CONFIG_VARIABLE``, or
                ``CONFIG_INVALID`` naming each key.
        """
        raw = read_yaml(path) if path is not None else {}
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals or not key:
                raise ConfigError(
                    "CONFIG_OVERRIDE", f"--set needs key=value; got '{override}'.", hint="--set engine.batch_rows=16"
                )
            try:
                _put(raw, key.split("."), parse_yaml(text))
            except yaml.YAMLError as error:
                raise ConfigError(
                    "CONFIG_OVERRIDE", f"--set {key}: the value is not valid YAML.", hint=_quotes(text)
                ) from error
        for key, value in values.items():
            if value is not None:
                _put(raw, key.split("__"), value)
        return validate(cls, expand(raw), where=str(path) if path is not None else "arguments")


def must_be(config: object, kind: type[JobConfig]) -> None:
    """Look whether a job was given as its configuration, and not as the file that holds it.

    Raises:
        ConfigError: ``CONFIG_INVALID``.
    """
    if not isinstance(config, kind):
        raise ConfigError(
            "CONFIG_INVALID",
            f"the job is a {kind.__name__}; got {type(config).__name__}.",
            hint=f"{kind.__name__}.load('job.yaml') reads one.",
        )


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], raw: Mapping[str, Any], *, where: str) -> Model:
    """Check ``raw`` against a pydantic model.

    Raises:
        ConfigError: ``CONFIG_INVALID``, with every problem at once.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = describe(error.errors(), raw, model)
        raise ConfigError(
            "CONFIG_INVALID",
            f"{where}: " + "; ".join(dict.fromkeys(lines)) + ("" if lines[-1].endswith("?") else "."),
            hint="the keys are described in docs/configuration.md.",
        ) from None  # pydantic's own words show the values


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """The safe loader, to which a key that stands twice is an error: it would take the last in silence."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return node


MOST_PARTS = 100_000
"""Values in one YAML file, those that it repeats by ``*anchor`` counted each time."""


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds, by the safe loader.

    Raises:
        yaml.YAMLError: it is no YAML, has a key twice, or by its anchors holds itself or more than ``MOST_PARTS``
            values.
    """
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 -- a safe loader too
    except (ValueError, RecursionError) as error:  # of dates and numbers, and of brackets without end
        raise yaml.YAMLError(f"a value that YAML cannot hold ({type(error).__name__})") from error
    waiting, seen = [raw], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen + len(waiting) > MOST_PARTS:
            raise yaml.YAMLError("its anchors make it larger than any")
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set):
            waiting += part
    return raw


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping of a YAML file.

    Raises:
        ConfigError: ``CONFIG_NOT_FOUND`` or ``CONFIG_YAML``.
    """
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        raw = parse_yaml(text)
    except FileNotFoundError as error:
        raise ConfigError(
            "CONFIG_NOT_FOUND",
            f"there is no configuration file '{path}'.",
            hint="relative paths start at the working folder.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("CONFIG_NOT_FOUND", f"'{path}' cannot be read as text: {type(error).__name__}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            "CONFIG_YAML",
            f"'{path}' is not valid YAML{at}: {getattr(error, 'problem', error)}.",
            hint=_quotes(text),
        ) from error
    if raw is not None and not isinstance(raw, dict):
        raise ConfigError("CONFIG_YAML", f"'{path}' must hold a mapping at its top; got {type(raw).__name__}.")
    return raw or {}


def _quotes(text: str) -> str | None:
    return "inside {...} and [...], a value with ${VAR} needs quotes." if "${" in text else None


def _put(raw: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = raw[key] if raw.get(key) is not None else raw.setdefault(key, {}) or {}
        raw[key] = inner
        if not isinstance(inner, dict):
            raise ConfigError("CONFIG_OVERRIDE", f"'{'.'.join(keys)}' cannot be set: '{key}' holds a value.")
        raw = inner
    raw[keys[-1]] = value
