"""Checks: Polars expressions over the structs ``in`` and ``out``, judged row by row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakemill_udfs.errors import ConfigError, missing_extra
from lakemill_udfs.steps.declared import Check
from lakemill_udfs.steps.functions import import_function

if TYPE_CHECKING:
    import polars as pl

ROW_WISE = {"BinaryExpr", "Column", "Literal", "Cast", "Alias", "Ternary", "Function", "KeepName", "Field"}
"""Nodes of a Polars expression that look at one row at a time."""

ROW_WISE_FUNCTIONS = {
    *("abs", "ceil", "floor", "round", "roundsf", "pow", "exp", "log", "log1p", "sign", "negate", "trigonometry"),
    *("atan2", "clip", "bitwise", "coalesce", "fillnull", "maxhorizontal", "minhorizontal", "sumhorizontal"),
    *("meanhorizontal", "stringexpr", "temporalexpr", "listexpr", "arrayexpr", "structexpr", "binaryexpr", "sql"),
    *("not", "isnull", "isnotnull", "isnan", "isnotnan", "isfinite", "isinfinite", "isin", "isbetween", "isclose"),
    *("anyhorizontal", "allhorizontal"),
}
"""Functions whose result for a row depends on no other row; any other could depend on the batching."""


def compile_check(check: Check, archive: str | None = None) -> pl.Expr:
    """Return the Polars expression of a check.

    Args:
        check: SQL, or a function that returns the expression.
        archive: As for ``import_function``.

    Raises:
        ConfigError: ``CHECK_EXPRESSION`` if it does not parse or reads the clock, ``CHECK_ACROSS_ROWS`` if it depends
            on other rows of its batch.
    """
    expression = _expression(check, archive)
    crossing = sorted(_crossing(json.loads(expression.meta.serialize(format="json"))))
    if "anonymousfunction" in crossing:
        raise ConfigError(
            "CHECK_EXPRESSION",
            f"check '{check.name}' calls Python for its rows, which Polars cannot look into.",
            hint="compute it in a Python step, and check that step's output.",
        )
    if crossing:
        raise ConfigError(
            "CHECK_ACROSS_ROWS",
            f"check '{check.name}' looks across rows ({', '.join(crossing)}); its result would depend on the batching.",
            hint="checks are judged row by row; aggregate the predictions table instead.",
        )
    unknown = sorted(set(expression.meta.root_names()) - {"in", "out"})
    if unknown:
        raise ConfigError(
            "CHECK_EXPRESSION", f"check '{check.name}' reads '{unknown[0]}'; it can read in.<column> and out.<output>."
        )
    if expression.meta.serialize() != _expression(check, archive).meta.serialize():
        raise ConfigError(
            "CHECK_EXPRESSION",
            f"check '{check.name}' is another one each time it is read, as with the current time.",
            hint="write the time as text, or compare with a column.",
        )
    return expression


def _expression(check: Check, archive: str | None) -> pl.Expr:
    try:
        import polars as pl
    except ImportError as error:
        raise missing_extra("polars", "all") from error

    if check.function is not None:
        try:
            made = import_function(check.function, archive)()
        except TypeError as error:
            raise ConfigError(
                "CHECK_EXPRESSION", f"check '{check.name}': its function takes no arguments and returns a polars.Expr."
            ) from error
        if isinstance(made, pl.Expr):
            return made
        raise ConfigError(
            "CHECK_EXPRESSION",
            f"check '{check.name}': its function returns a polars.Expr; got {type(made).__name__}.",
            hint='lambda: pl.col("out").struct.field("probability") < 0.5',
        )
    try:
        parsed: pl.Expr = pl.sql_expr(check.expr)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise ConfigError(
            "CHECK_EXPRESSION",
            f"check '{check.name}' does not parse: {check.expr!r}.",
            hint="write SQL over in and out, for example out.probability < 0.5",
        ) from error
    return parsed


def run_checks(checks: dict[str, pl.Expr], inputs: pa.Array, outputs: pa.Array) -> pa.Array:
    """Return ``anomaly``: ``struct<count int, ...one bool a check>``; a check that is null for a row has not failed.

    Args:
        checks: Compiled expressions by name.
        inputs: Struct ``in``, one row each.
        outputs: Struct ``out``, one row each.

    Raises:
        polars.exceptions.PolarsError: an expression reads a field that is not there, or compares what cannot be.
    """
    names = list(checks)
    if not names:
        return pa.StructArray.from_arrays([pa.repeat(pa.scalar(0, pa.int32()), len(outputs))], names=["count"])
    import polars as pl

    sides = {"in": inputs, "out": outputs}  # a struct without fields has no length
    frame = pl.DataFrame({name: pl.Series(side) for name, side in sides.items() if side.type.num_fields})
    result = frame.select(
        pl.Expr.fill_null(expression.alias(name).cast(pl.Boolean), value=False) for name, expression in checks.items()
    )
    columns = {name: result[name].to_arrow() for name in names}
    count = result.select(pl.sum_horizontal(pl.all().cast(pl.Int32))).to_series().to_arrow().cast(pa.int32())
    return pa.StructArray.from_arrays([count, *columns.values()], names=["count", *names])


def judge(checks: dict[str, pl.Expr], inputs: pa.Array, outputs: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Run the checks; where they raise, rows are halved until those for which they do are alone.

    Args:
        checks: As for ``run_checks``.
        inputs: As for ``run_checks``.
        outputs: As for ``run_checks``.

    Returns:
        ``anomaly`` of the rows that could be judged, in order, and for the others, by place, the error's class.
    """
    if not checks:
        return run_checks(checks, inputs, outputs), {}
    from polars.exceptions import PanicException, PolarsError

    try:
        return run_checks(checks, inputs, outputs), {}
    except (PolarsError, PanicException) as error:
        rows = len(outputs)
        if rows <= 1:
            return run_checks({}, inputs[:0], outputs[:0]), dict.fromkeys(range(rows), type(error).__name__)
    half = rows // 2
    left, left_failed = judge(checks, inputs[:half], outputs[:half])
    right, right_failed = judge(checks, inputs[half:], outputs[half:])
    judged = [part for part in (left, right) if len(part)] or [left]
    return pa.concat_arrays(judged), left_failed | {half + place: kind for place, kind in right_failed.items()}


def _crossing(node: Any) -> set[str]:
    """Return the names of everything in an expression's JSON form that looks at more than one row."""
    if isinstance(node, list):
        return set().union(*map(_crossing, node)) if node else set()
    if not isinstance(node, dict):
        return {"len"} if node == "Len" else set()
    found: set[str] = set()
    for kind, inner in node.items():
        if kind == "Function":
            found |= {_function(inner["function"])} - ROW_WISE_FUNCTIONS
            found |= _crossing(inner.get("input", []))
        elif kind[:1].isupper() and kind not in ROW_WISE:
            found.add(kind.lower())
        elif kind not in ("Column", "Literal"):
            found |= _crossing(inner)
    return found


def _function(written: str | dict[str, Any]) -> str:
    """Return a function's name: ``"Abs"``, ``{"Pow": "Sqrt"}`` or, of conditions, ``{"Boolean": "IsNull"}``."""
    name = written if isinstance(written, str) else next(iter(written))
    if name == "Boolean" and isinstance(written, dict):
        return _function(written[name])
    return name.lower()
