"""Whether the row alone decides ``source.where``.

A job that goes on from what it has scored asks each row once. If chance, the clock, another table or the file that a
row happens to lie in decided, a row would be left out, or scored, for good by what was so in one moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from lakemill.config.predict import PredictConfig
from lakemill_udfs.errors import ConfigError

FUNCTIONS = frozenset(
    {
        *("rand", "random", "randn", "randstr", "uniform", "uuid", "shuffle"),
        *("current_timestamp", "current_date", "current_time", "curdate", "now", "localtimestamp", "current_timezone"),
        *("current_user", "user", "session_user", "current_catalog", "current_database", "current_schema", "version"),
        *("monotonically_increasing_id", "spark_partition_id"),
        *("input_file_name", "input_file_block_start", "input_file_block_length"),
        *("reflect", "java_method", "try_reflect"),
    }
)
"""Of Spark's, those that say something else in another moment, session or file."""

OTHERS = frozenset(
    {"current_timestamp", "current_date", "current_time", "current_user", "localtimestamp", "session_user", "user"}
    | {"_metadata"}
)
"""What may stand there like a column, which goes before it: functions without parentheses, and Spark's column of the
file that a row lies in."""

MOMENTS = frozenset({"now", "today", "tomorrow", "yesterday"})
"""What ``DATE 'today'`` and its like may say."""

TABLES = frozenset({"values", "table"})
"""What a subquery may begin with besides SELECT; in parentheses, a column may have such a name."""


def where_problems(config: PredictConfig, columns: Iterable[str] | None = None) -> Iterator[ConfigError]:
    """Yield an error where a job goes on from what it has scored, by a predicate that the row does not decide.

    Args:
        config: The job.
        columns: Of its source; None while they are not known.
    """
    where = config.source.where
    if where is None or config.mode == "full":
        return
    what = not_by_row(where, {*OTHERS, *TABLES} if columns is None else columns)
    if what is not None:
        yield ConfigError(
            "WHERE_NOT_BY_ROW",
            f"source.where {where!r} has {what}: the row alone must say whether it is scored, in mode: {config.mode}.",
            hint="compare columns with literals; mode: full takes any predicate, as it asks every row anew.",
        )


def not_by_row(text: str, columns: Iterable[str]) -> str | None:
    """Return what in a predicate the row does not decide, or what hides the end of it; None if there is no such thing.

    Args:
        text: The predicate; one that is no SQL is the engine's to refuse.
        columns: Of the table.
    """
    from sqlglot.dialects.spark import Spark  # 70 ms, only where there is a predicate
    from sqlglot.errors import SqlglotError

    try:
        tokens = Spark().tokenize(text)
    except SqlglotError:
        return None
    if any(token.comments for token in tokens):
        return "a comment"
    known = {name.lower() for name in columns}
    words = ["", *(token.text.strip().lower() for token in tokens), "", ""]
    found = (_not_by_row(token.token_type.name, words[place : place + 4], known) for place, token in enumerate(tokens))
    return next((what for what in found if what is not None), None)


def _not_by_row(kind: str, words: Sequence[str], known: Collection[str]) -> str | None:
    """Return what one token says that the row does not decide.

    Args:
        kind: Of token.
        words: The one before it, its own, and two after it, in small letters.
        known: The table's columns.
    """
    before, word, after, then = words
    if kind.endswith("STRING"):
        return f"{before} '{word}'" if word in MOMENTS and before.startswith(("date", "timestamp")) else None
    if after == "(" and (word in FUNCTIONS or (word == "unix_timestamp" and then == ")")):
        return f"{word}()"
    if before == "(" and (kind == "SELECT" or (word in TABLES and word not in known)):
        return "a subquery"
    return word if word in OTHERS and before != "." and word not in known else None
