"""What Spark's EXPLAIN says of a DataFrame: whether it is only a scan, a filter and a projection, and which.

The text is for people, so what is read here is a guess: ``scans.py`` lets Spark prove it on the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lakemill.engines.sql import quoted, sql_text

SECTION = re.compile(r"== Optimized Logical Plan ==\n(.*?)\n\n== Physical Plan ==", re.DOTALL)
ATTRIBUTE = re.compile(r"(\w+)#(\d+)L?")
COMPARED = re.compile(r"\(\w+#(\d+)L? (=|<=|>=|<|>) ([^()#]*)\)")
NULL = re.compile(r"is(not)?null\(\w+#(\d+)L?\)")
TEXT_IS = re.compile(r"(StartsWith|EndsWith|Contains)\(\w+#(\d+)L?, ([^()#%\\_]+)\)")
ONE_OF = re.compile(r"\w+#(\d+)L? (?:IN \(([^()#]*)\)|INSET ([^()#]*?)(?=\)| AND | OR |$))")

LIKE = {"StartsWith": "{}%", "EndsWith": "%{}", "Contains": "%{}%"}
NUMBERS = {
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), re.compile(r"-?\d+")),
    **dict.fromkeys(("float", "double"), re.compile(r"-?\d+\.\d+")),
}


class NotAScanError(Exception):
    """The plan does more than scan, filter and project, or says it in a way that is not read; the text says which."""


@dataclass(frozen=True)
class ScanPlan:
    """A scan of one table.

    Args:
        columns: Of the table, in the DataFrame's order.
        where: The filter in SQL; None is all rows.
    """

    columns: tuple[str, ...]
    where: str | None


def read_plan(text: str, types: Mapping[str, str]) -> ScanPlan:
    """Read the answer of ``EXPLAIN EXTENDED``.

    Args:
        text: The answer.
        types: Spark's names of the types of the table's columns.

    Raises:
        NotAScanError: it is more than a scan, or is not understood.
    """
    section = SECTION.search(text)
    nodes = [line.lstrip(" +-:") for line in section[1].split("\n")] if section else []
    if not nodes or not (relation := re.fullmatch(r"Relation (?:\S+ )?\[(.*)\] parquet", nodes[-1])):
        raise NotAScanError("it is not over one table of files")
    attributes = {number: name for name, number in _listed(relation[1])}
    chosen, wheres = list(attributes), []
    for node in reversed(nodes[:-1]):
        if project := re.fullmatch(r"Project \[(.*)\]", node):
            chosen = [number for _, number in _listed(project[1])]
        elif node.startswith("Filter "):
            wheres.append(_Condition(node.removeprefix("Filter "), attributes, types).sql())
        else:
            raise NotAScanError("it does more than filter rows and choose columns")
    if not set(chosen) <= set(attributes):
        raise NotAScanError("it computes columns")
    return ScanPlan(tuple(attributes[number] for number in chosen), " AND ".join(wheres) or None)


def _listed(text: str) -> list[tuple[str, str]]:
    found = [ATTRIBUTE.fullmatch(one) for one in re.split(r", ?", text)]
    if not all(found):
        raise NotAScanError("it computes columns")
    return [(one[1], one[2]) for one in found if one]


class _Condition:
    """Reads a filter from left to right."""

    def __init__(self, text: str, attributes: Mapping[str, str], types: Mapping[str, str]) -> None:
        self._text, self._at, self._attributes, self._types = text, 0, attributes, types

    def sql(self) -> str:
        found = self._one()
        if self._at != len(self._text):
            raise self._unread()
        return found

    def _one(self) -> str:
        if found := self._match(COMPARED):
            return f"({self._column(found[1])} {found[2]} {self._literal(found[1], found[3])})"
        if found := self._match(NULL):
            return f"({self._column(found[2])} IS {'NOT ' if found[1] else ''}NULL)"
        if found := self._match(TEXT_IS):
            return f"({self._column(found[2])} LIKE {sql_text(LIKE[found[1]].format(found[3]))})"
        if found := self._match(ONE_OF):
            literals = found[2].split(",") if found[2] is not None else found[3].split(", ")
            return f"({self._column(found[1])} IN ({', '.join(self._literal(found[1], one) for one in literals)}))"
        return self._several()

    def _several(self) -> str:
        if self._match(re.compile("NOT ")):
            return f"(NOT {self._one()})"
        if found := self._match(ATTRIBUTE):
            return self._column(found[2])
        self._expect(re.compile(r"\("))
        left, both, right = self._one(), self._expect(re.compile(" (AND|OR) ")), self._one()
        self._expect(re.compile(r"\)"))
        return f"({left} {both[1]} {right})"

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _expect(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = self._match(pattern)
        if found is None:
            raise self._unread()
        return found

    def _column(self, number: str) -> str:
        if number not in self._attributes:
            raise self._unread()
        return quoted(self._attributes[number])

    def _literal(self, number: str, text: str) -> str:
        kind = self._types.get(self._attributes.get(number, ""), "")
        if kind == "string":
            return sql_text(text)
        if kind == "date" and re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return f"DATE '{text}'"
        if kind == "boolean" and text in ("true", "false"):
            return text
        if kind in NUMBERS and NUMBERS[kind].fullmatch(text):
            return text
        raise self._unread()

    @staticmethod
    def _unread() -> NotAScanError:
        return NotAScanError("its filter cannot be read back as SQL")
