"""Which columns a result of ``infer`` has: ``dataset``, ``dataset_exclude`` and ``dataset_separator``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lakemill_udfs.errors import ConfigError

METADATA = ("elapsed", "last_model", "pipeline_version")
ALIASES = {"meta": "metadata"}


@dataclass(frozen=True)
class Field:
    """One column of a result.

    Args:
        name: Its name there.
        part: ``time``, ``in``, ``out``, ``anomaly`` or ``metadata``.
        key: The input's, output's, check's or fact's own name.
    """

    name: str
    part: str
    key: str


def choose(
    keys: Mapping[str, Sequence[str]],
    dataset: Sequence[str] | str = ("*",),
    exclude: Sequence[str] | str = (),
    separator: str = ".",
    *,
    is_testing: bool = False,
) -> tuple[Field, ...]:
    """Return the columns in the order asked for; ``*`` is time, in, out and anomaly.

    Args:
        keys: The fields there are of ``in``, ``out`` and ``anomaly``, in order, and of ``out_<challenger>``.
        dataset: Selectors: ``*``, ``time``, ``in``, ``in.<name>``, ``out``, ``out.<name>``, ``anomaly``,
            ``anomaly.<check>``, ``check_failures``, ``metadata`` or ``meta``, ``metadata.elapsed``,
            ``metadata.last_model``, ``metadata.pipeline_version``, ``metadata.models``.
        exclude: Selectors of what is left out.
        separator: Between a part and the name, in the result.
        is_testing: Whether the pipeline splits traffic or has shadows: then ``metadata`` and ``metadata.elapsed`` are
            asked for without ``*``.

    Raises:
        ConfigError: ``DATASET_UNKNOWN`` if a selector stands for nothing; ``DATASET_TESTING``.
    """
    known = dict(keys) | {"metadata": METADATA}
    if is_testing:
        _refuse_metadata_with_all(_listed(dataset))
    chosen = {field: None for selector in _listed(dataset) for field in _expand(selector, known)}
    for selector in _listed(exclude):
        for field in _expand(selector, known):
            chosen.pop(field, None)
    return tuple(
        Field(
            f"{part}{separator}{key}" if key else part,
            *(("anomaly", "count") if part == "check_failures" else (part, key)),
        )
        for part, key in chosen
    )


def _refuse_metadata_with_all(selectors: Sequence[str]) -> None:
    refused = [one for one in selectors if one in ("meta", "metadata", "metadata.elapsed")]
    if refused and "*" in selectors:
        raise ConfigError(
            "DATASET_TESTING",
            f"a pipeline that splits traffic or has shadows gives '{refused[0]}' without '*' only.",
            hint="dataset: [time, out, metadata.elapsed]",
        )


def _listed(selectors: Sequence[str] | str) -> Sequence[str]:
    return (selectors,) if isinstance(selectors, str) else selectors


def _expand(selector: str, known: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    if selector == "*":
        outs = [part for part in known if part.startswith("out_")]
        return [field for part in ("time", "in", "out", *outs, "anomaly") for field in _expand(part, known)]
    if selector in ("time", "check_failures"):
        return [(selector, "")]
    part, dot, key = selector.partition(".")
    part = ALIASES.get(part, part)
    if part in known and not dot:
        return [(part, name) for name in known[part]]
    if part in known and (key in known[part] or (part, key) == ("metadata", "models")):  # only asked for by name
        return [(part, key)]
    names = (
        ", ".join(f"{part}.{name}" for name in known[part])
        if part in known
        else "*, time, check_failures, " + ", ".join(known)
    )
    raise ConfigError("DATASET_UNKNOWN", f"dataset '{selector}' stands for nothing; there are: {names}.")
