"""What is wrong with a configuration, in the words of the YAML file: no name of pydantic's reaches the reader."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from lakemill.config.json_schema import all_keys, keys_at

Place = tuple[str | int, ...]

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_argument")
LONGEST_VALUE = 40
KINDS: dict[type, str] = {dict: "a mapping", list: "a list", tuple: "a list", type(None): "nothing (null)"}
WANTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than_equal": lambda limits: f"{limits['ge']:,} or more",
    "greater_than": lambda limits: f"more than {limits['gt']:,}",
    "less_than_equal": lambda limits: f"{limits['le']:,} or less",
    "less_than": lambda limits: f"less than {limits['lt']:,}",
    "too_long": lambda limits: f"a list of {limits['max_length']}",
    "too_short": lambda limits: f"a list of {limits['min_length']} or more",
    "literal_error": lambda limits: str(limits["expected"]).replace("'", ""),
    "none_required": lambda _: "null",
}
KINDS_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
}


def describe(problems: Sequence[ErrorDetails], raw: object, model: type[BaseModel]) -> list[str]:
    """Return one sentence for each place where a configuration is wrong.

    Args:
        problems: As ``pydantic.ValidationError.errors`` gives them.
        raw: What was checked.
        model: What it was checked against.
    """
    places: dict[Place, list[ErrorDetails]] = {}
    branched: set[Place] = set()  # places that may hold one thing or another
    for problem in problems:
        place, has_branches = _place(problem, raw)
        places.setdefault(place, []).append(problem)
        if has_branches:
            branched.add(place)
    # Where a mapping was given, what is wrong inside it says more than that a text would have done too.
    vague = {place for place in branched if any(other[: len(place)] == place and other != place for other in places)}
    return [_sentence(place, found, model) for place, found in places.items() if place not in vague]


def _place(problem: ErrorDetails, raw: object) -> tuple[Place, bool]:
    """Return where in the YAML a problem is, without the names of types, and whether there were such names."""
    place: list[str | int] = []
    parts, tags = problem["loc"], 0
    value: object = raw
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if isinstance(value, Mapping) and (part in value or (is_last and problem["type"] in MISSING)):
            place.append(part)
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int):
            place.append(part)
            value = value[part] if part < len(value) else None
        else:
            tags += 1
    return tuple(place), tags > 0


def _sentence(place: Place, problems: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    first, dotted = problems[0], ".".join(map(str, place))
    if first["type"] in UNKNOWN:
        return f"unknown key '{dotted}'" + _near_key(place, model)
    if first["type"] in MISSING:
        if isinstance(place[-1], int):
            return f"'{dotted.rpartition('.')[0]}' is too short: number {place[-1] + 1} of its values is missing"
        return f"'{dotted}' is missing"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"'{dotted}': {message}" if dotted else message
    wanted = " or ".join(dict.fromkeys(map(_wanted, problems)))
    value = first["input"]
    like = f", write [{value}]" if wanted == "a list" and isinstance(value, str) else ""
    return f"'{dotted}' must be {wanted}{like}; got {_given(value)}" + _near_value(problems)


def _wanted(problem: ErrorDetails) -> str:
    if problem["type"] in WANTED:
        return WANTED[problem["type"]](problem.get("ctx", {}))
    for kind, wanted in KINDS_WANTED.items():
        if problem["type"].startswith(kind):
            return wanted
    return str(problem["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _given(value: object) -> str:
    if type(value) in KINDS:
        return KINDS[type(value)]
    if isinstance(value, bool):
        return str(value).lower()
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}...'"


def _near_key(place: Place, model: type[BaseModel]) -> str:
    key = str(place[-1])
    here = difflib.get_close_matches(key, keys_at(model, place[:-1]), n=1, cutoff=0.6)
    if here:
        return f", did you mean '{here[0]}'?"
    elsewhere = [dotted for dotted in all_keys(model) if dotted.rpartition(".")[2] == key]
    if elsewhere:
        nearest = [dotted for dotted in elsewhere if dotted.count(".") == elsewhere[0].count(".")]
        return ", did you mean " + " or ".join(f"'{dotted}'" for dotted in nearest) + "?"
    known = keys_at(model, place[:-1])
    return f"; there are: {', '.join(known)}" if known else ""


def _near_value(problems: Sequence[ErrorDetails]) -> str:
    given = problems[0]["input"]
    words = [
        word.strip("'")
        for problem in problems
        if problem["type"] == "literal_error"
        for word in str(problem["ctx"]["expected"]).replace(" or ", ", ").split(", ")
    ]
    near = difflib.get_close_matches(given, words, n=1) if isinstance(given, str) else []
    return f", did you mean '{near[0]}'?" if near else ""
