"""SQL predicates to Arrow expressions, node by node, with Spark's meaning of each."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from lakemill.engines.local.features import unsupported
from lakemill_udfs.errors import ConfigError, SetupError

Expression = Any
"""An Arrow expression: pyarrow ships no types."""

FLIPPED = {"=": "=", "<=>": "<=>", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
COMPARISONS: dict[type[exp.Expression], str] = {
    exp.EQ: "=",
    exp.NullSafeEQ: "<=>",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
OPERANDS = frozenset(
    {"this", "expression", "expressions", "low", "high", "negate", "is_string", "to", "table", "db", "catalog"}
)
"""Parts of a syntax node that are read."""

INTEGERS = {"TINYINT": pa.int8(), "SMALLINT": pa.int16(), "INT": pa.int32(), "BIGINT": pa.int64()}
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")
EXACT_IN_FLOAT, EXACT_IN_DOUBLE = 2**24, 2**53


@dataclass(frozen=True)
class Value:
    """One side of a comparison.

    Args:
        kind: Type of a column; None for a literal.
        expression: Of a column.
        literal: Python's value of a literal: int, Decimal, float, str, bool, date or datetime.
    """

    kind: pa.DataType | None = None
    expression: Expression = None
    literal: Any = None


def parse(text: str, schema: pa.Schema) -> exp.Expression:
    """Return the syntax tree of a predicate.

    Raises:
        ConfigError: ``WHERE_INVALID``.
        SetupError: ``ENGINE_LOCAL`` for escapes in texts, which depend on Spark's settings.
    """
    if re.search(r"\\(?!['\\])", text.replace("\\\\", "")):
        raise unsupported("the local engine reads no escapes in texts but those of quotes and backslashes.")
    try:
        parsed = sqlglot.parse(text, read="spark")
    except SqlglotError as error:
        raise invalid(text, schema, "it does not parse") from error
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Expression):
        raise invalid(text, schema, f"it is {len(parsed)} statements")
    return parsed[0]


def invalid(text: str, schema: pa.Schema, why: str) -> ConfigError:
    """Return the error for a predicate that does not fit the table."""
    return ConfigError(
        "WHERE_INVALID",
        f"source.where does not fit the table: {text!r} ({why}).",
        hint=f"it is a SQL predicate on: {', '.join(schema.names)}",
    )


@dataclass
class Reading:
    """Reads one predicate against one schema.

    Args:
        text: The predicate, for messages.
        schema: Of the rows that it is about.
        columns: The leaf columns met so far, by path, with their types.
    """

    text: str
    schema: pa.Schema
    columns: dict[tuple[str, ...], pa.DataType] = field(default_factory=dict)

    def condition(self, node: exp.Expression) -> Expression:
        """Return the Arrow expression of a boolean node.

        Raises:
            ConfigError: ``WHERE_INVALID``.
            SetupError: ``ENGINE_LOCAL``.
        """
        self._no_options(node)
        found = self._condition(node)
        return ~found if node.args.get("negate") else found

    def _condition(self, node: exp.Expression) -> Expression:
        kind = type(node)
        if kind in COMPARISONS:
            return self._compare(COMPARISONS[kind], self._value(node.this), self._value(node.args["expression"]))
        if kind in (exp.And, exp.Or):
            left, right = self.condition(node.this), self.condition(node.args["expression"])
            return left & right if kind is exp.And else left | right
        others: dict[type[exp.Expression], Callable[[Any], Expression]] = {
            exp.Paren: lambda inner: self.condition(inner.this),
            exp.Not: lambda inner: ~self.condition(inner.this),
            exp.Between: self._between,
            exp.In: self._among,
            exp.Like: self._like,
            exp.Is: self._is,
        }
        return others.get(kind, self._truth)(node)

    def _no_options(self, node: exp.Expression) -> None:
        """Refuse what a syntax node says besides its operands: left out, the predicate would be another."""
        options = [name for name, value in node.args.items() if value and name not in OPERANDS]
        if options:
            raise self._refused(node, f"has {', '.join(options)}")

    def _truth(self, node: exp.Expression) -> Expression:
        if isinstance(node, exp.Boolean):
            return pc.scalar(bool(node.this))
        value = self._value(node)
        if value.kind is None or not pa.types.is_boolean(value.kind):
            raise self._refused(node, "is no condition")
        return value.expression

    def _is(self, node: exp.Is) -> Expression:
        value = self._value(node.this)
        if value.expression is None:
            raise self._refused(node, "asks a literal")
        if isinstance(node.expression, exp.Null):
            return value.expression.is_null()
        if isinstance(node.expression, exp.Boolean) and value.kind is not None and pa.types.is_boolean(value.kind):
            wanted = value.expression if node.expression.this else ~value.expression
            return value.expression.is_valid() & wanted
        raise self._refused(node, "is no test for NULL, TRUE or FALSE")

    def _between(self, node: exp.Between) -> Expression:
        value, low, high = (self._value(node.args[part]) for part in ("this", "low", "high"))
        return self._compare(">=", value, low) & self._compare("<=", value, high)

    def _among(self, node: exp.In) -> Expression:
        value, choices = self._value(node.this), [self._value(choice) for choice in node.expressions]
        if not choices or value.kind is None or any(choice.kind is not None for choice in choices):
            raise self._refused(node, "is no list of literals for a column")
        if not (pa.types.is_integer(value.kind) or pa.types.is_string(value.kind)):
            return reduce(lambda one, other: one | other, [self._compare("=", value, choice) for choice in choices])
        wanted = [self._literal(value.kind, choice.literal, node) for choice in choices]
        if pa.types.is_integer(value.kind):
            if not all(isinstance(number, int) for number in wanted):
                raise self._refused(node, "compares integers with fractions")
            bits = value.kind.bit_width - 1
            wanted = [number for number in wanted if -(2**bits) <= number < 2**bits]
        member = pc.is_in(value.expression, pa.array(wanted, value.kind))
        return pc.if_else(value.expression.is_null(), pa.scalar(None, pa.bool_()), member)  # Arrow says false for null

    def _like(self, node: exp.Like) -> Expression:
        value, pattern = self._value(node.this), self._value(node.expression)
        if value.kind is None or not pa.types.is_string(value.kind) or not isinstance(pattern.literal, str):
            raise self._refused(node, "is not LIKE of a text column and a literal")
        if "\\" in pattern.literal:
            raise self._refused(node, "has an escape")
        return pc.match_like(value.expression, pattern.literal)

    def _compare(self, sign: str, left: Value, right: Value) -> Expression:
        if left.kind is None:
            left, right, sign = right, left, FLIPPED[sign]
        if left.kind is None:
            raise unsupported(f"the local engine compares no two literals: {self.text!r}.")
        if right.kind is None:
            other = pa.scalar(self._literal(left.kind, right.literal, None))
        elif left.kind == right.kind or (pa.types.is_integer(left.kind) and pa.types.is_integer(right.kind)):
            self._comparable(left.kind)
            other = right.expression
        else:
            raise unsupported(f"the local engine does not compare {left.kind} with {right.kind}: {self.text!r}.")
        if sign == "<=>":
            same = _floats(left.kind, right.kind)["="](left.expression, other)
            if right.kind is None:
                return left.expression.is_valid() & same
            neither, both = left.expression.is_null() & other.is_null(), left.expression.is_valid() & other.is_valid()
            return neither | (both & same)
        return _floats(left.kind, right.kind)[sign](left.expression, other)

    def _comparable(self, kind: pa.DataType) -> None:
        test = pa.types
        is_instant = test.is_timestamp(kind) and kind.tz is not None
        plain = (test.is_integer, test.is_floating, test.is_decimal, test.is_string, test.is_boolean, test.is_date)
        if not is_instant and not any(is_kind(kind) for is_kind in plain):
            raise unsupported(f"the local engine does not compare values of type {kind}: {self.text!r}.")

    def _literal(self, kind: pa.DataType, value: Any, node: exp.Expression | None) -> Any:
        """Return a literal as Spark would compare it with a column of this type."""
        self._comparable(kind)
        test, agreed = pa.types, cast(Any, None)
        if test.is_boolean(kind):
            agreed = value if isinstance(value, bool) else None
        elif isinstance(value, bool):
            agreed = None
        elif test.is_string(kind):
            agreed = value if isinstance(value, str) else None
        elif test.is_date(kind):
            agreed = _day(value)
        elif test.is_timestamp(kind):
            agreed = _instant(value)
        elif test.is_floating(kind):
            agreed = _number(value, EXACT_IN_FLOAT if kind == pa.float32() else EXACT_IN_DOUBLE)
        elif isinstance(value, int | Decimal) and (isinstance(value, Decimal) or abs(value) < 2**63):
            agreed = Decimal(value) if test.is_decimal(kind) else value
        if agreed is None:
            text = (node.sql(dialect="spark") if node is not None else None) or self.text
            raise unsupported(
                f"the local engine does not compare {kind} with such a literal: {text!r}.",
                "write a literal of the column's own type, instants with their zone; or engine: {name: spark}.",
            )
        return agreed

    def _value(self, node: exp.Expression) -> Value:
        self._no_options(node)
        if isinstance(node, exp.Paren):
            return self._value(node.this)
        if isinstance(node, exp.Boolean):
            return Value(literal=bool(node.this))
        if isinstance(node, exp.Literal):
            return Value(literal=node.this if node.is_string else _parsed_number(str(node.this)))
        if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
            return Value(literal=-_parsed_number(str(node.this.this)))
        if isinstance(node, exp.Cast | exp.TryCast):
            return self._cast(node)
        path = self.path(node)
        if path is None:
            raise self._refused(node, "is no column and no literal")
        return self._column_value(path)

    def _cast(self, node: exp.Expression) -> Value:
        value, target = self._value(node.this), node.args["to"].this.name
        if target in INTEGERS and value.kind is not None and pa.types.is_integer(value.kind):
            kind = INTEGERS[target]
            if kind.bit_width >= value.kind.bit_width:
                return Value(kind, value.expression.cast(kind))
        if (
            target in INTEGERS
            and type(value.literal) is int
            and abs(value.literal) < 2 ** (INTEGERS[target].bit_width - 1)
        ):
            return value
        if target == "DATE" and isinstance(value.literal, str) and (day := _day(value.literal)):
            return Value(literal=day)
        if (
            target in {"TIMESTAMP", "TIMESTAMPTZ"}
            and isinstance(value.literal, str)
            and (at := _instant(value.literal))
        ):
            return Value(literal=at)
        raise self._refused(node, "is a cast that depends on Spark's settings")

    def path(self, node: exp.Expression) -> list[str] | None:
        """Return the parts of a column's name, or of a field of a struct."""
        if isinstance(node, exp.Column):
            return [part.name for part in node.parts]
        if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Identifier):
            above = self.path(node.this)
            return None if above is None else [*above, node.expression.name]
        if isinstance(node, exp.Bracket) and len(node.expressions) == 1:
            key, above = node.expressions[0], self.path(node.this)
            if above is not None and isinstance(key, exp.Literal) and key.is_string:
                return [*above, key.this]
        return None

    def resolved(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Return the path of a column as the table writes it.

        Raises:
            ConfigError: ``WHERE_INVALID`` if the table has no such column.
        """
        return self._column(parts)[0]

    def _column(self, parts: Sequence[str]) -> tuple[tuple[str, ...], pa.Field]:
        fields, path = list(self.schema), []
        for part in parts:
            found = [field for field in fields if field.name.lower() == part.lower()]  # as Spark: in any case
            if len(found) != 1:
                name = ".".join(parts)
                why = f"{len(found)} columns are called '{name}'" if found else f"there is no column '{name}'"
                raise invalid(self.text, self.schema, why)
            path.append(found[0].name)
            fields = list(found[0].type) if pa.types.is_struct(found[0].type) else []
        return tuple(path), found[0]

    def _column_value(self, parts: Sequence[str]) -> Value:
        path, column = self._column(parts)
        if any(name.startswith((b"__CHAR_VARCHAR", b"__COLLATIONS")) for name in column.metadata or {}):
            raise unsupported(f"the local engine does not compare '{'.'.join(parts)}', which is padded or collated.")
        self.columns[path] = column.type
        return Value(column.type, pc.field(*path))

    def _refused(self, node: exp.Expression, why: str) -> SetupError:
        return unsupported(
            f"the local engine does not read {node.sql(dialect='spark')!r}, which {why}: {self.text!r}.",
            "it reads comparisons, BETWEEN, IN, LIKE, IS NULL, AND, OR, NOT; for more, engine: {name: spark}.",
        )


def _parsed_number(text: str) -> int | Decimal | float:
    if "e" in text.lower():
        return float(text)
    return Decimal(text) if "." in text else int(text)


def _number(value: Any, exact: int) -> float | None:
    if isinstance(value, int):
        return float(value) if abs(value) <= exact else None
    return float(value) if isinstance(value, Decimal | float) else None


def _day(value: Any) -> dt.date | None:
    if isinstance(value, str) and DAY.fullmatch(value):
        return dt.date.fromisoformat(value)
    return value if type(value) is dt.date else None


def _instant(value: Any) -> dt.datetime | None:
    if isinstance(value, str) and INSTANT.fullmatch(value):
        return dt.datetime.fromisoformat(value)
    return value if isinstance(value, dt.datetime) else None


def _floats(left: pa.DataType, right: pa.DataType | None) -> dict[str, Callable[[Any, Any], Expression]]:
    """Return the comparisons; of floating point numbers with NaN equal to itself and above all others."""
    if not pa.types.is_floating(left):
        return PLAIN
    if right is None:
        return PLAIN | {
            ">": lambda one, other: (one > other) | one.is_nan(),
            ">=": lambda one, other: (one >= other) | one.is_nan(),
        }

    def less(one: Expression, other: Expression) -> Expression:
        return (one < other) | (other.is_nan() & ~one.is_nan())

    def equal(one: Expression, other: Expression) -> Expression:
        return (one == other) | (one.is_nan() & other.is_nan())

    return {
        "=": equal,
        "<>": lambda one, other: ~equal(one, other),
        "<": less,
        ">": lambda one, other: less(other, one),
        "<=": lambda one, other: less(one, other) | equal(one, other),
        ">=": lambda one, other: less(other, one) | equal(one, other),
    }


PLAIN: dict[str, Callable[[Any, Any], Expression]] = {
    "=": lambda one, other: one == other,
    "<>": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}
