"""Predicates in the SQL of delta-rs (DataFusion), out of the SQL that both engines read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from lakemill.engines.local.predicates import Predicate

if TYPE_CHECKING:
    from sqlglot import exp


def delta_rs_sql(text: str, schema: pa.Schema, table: str | None = None) -> str:
    """Return a predicate as delta-rs reads it.

    Args:
        text: In the SQL of ``predicates``.
        schema: Of the table.
        table: Alias that its columns stand under.

    Raises:
        ConfigError: ``WHERE_INVALID``.
        SetupError: ``ENGINE_LOCAL``.
    """
    from sqlglot import exp

    from lakemill.engines.local.expressions import Reading, parse

    Predicate.read(text, schema)  # what it refuses, this could write wrong
    reading = Reading(text, schema)

    def renamed(node: exp.Expression) -> exp.Expression:
        path = reading.path(node)
        if path is None:
            return node
        first, *fields = reading.resolved(path)
        column: exp.Expression = exp.column(first, table=table, quoted=True)
        for field in fields:
            column = exp.Bracket(this=column, expressions=[exp.Literal.string(field)])
        return column

    return parse(text, schema).transform(renamed).sql(dialect="postgres")
