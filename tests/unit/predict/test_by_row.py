"""A predicate is of the row, or it is named what in it is not."""

from __future__ import annotations

import pytest

from lakemill.predict.by_row import not_by_row

COLUMNS = ("id", "day", "text", "version", "struct")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("rand() < 0.5", "rand()"),
        ("id > 1 AND `Rand`(7) < 0.5", "rand()"),
        ("uuid() > text", "uuid()"),
        ("day < current_date", "current_date"),
        ("day < CURRENT_DATE()", "current_date()"),
        ("day < now() - INTERVAL 1 DAY", "now()"),
        ("day < system.builtin.now()", "now()"),
        ("day < DATE 'today'", "date 'today'"),
        ("day < timestamp_ntz ' NOW '", "timestamp_ntz 'now'"),
        ("id < unix_timestamp()", "unix_timestamp()"),
        ("text = current_user()", "current_user()"),
        ("text = user", "user"),
        ("id = monotonically_increasing_id()", "monotonically_increasing_id()"),
        ("input_file_name() LIKE '%a'", "input_file_name()"),
        ("_metadata.file_path LIKE '%a'", "_metadata"),
        ("java_method('java.util.UUID', 'randomUUID') > text", "java_method()"),
        ("id IN (SELECT id FROM others)", "a subquery"),
        ("EXISTS (VALUES 1)", "a subquery"),
        ("id IN ( TABLE others)", "a subquery"),
        ("id > 1 -- and so on", "a comment"),
        ("id > /* not */ 1", "a comment"),
    ],
)
def test_what_the_row_does_not_decide_is_named(where: str, what: str) -> None:
    assert not_by_row(where, COLUMNS) == what


@pytest.mark.parametrize(
    "where",
    [
        "id > 1 AND text LIKE 'rand()%'",
        "text = 'current_date' OR text = \"now()\" OR text = 'today'",
        "struct.user = 'x' AND struct.now > 1",
        "version = 2",
        "unix_timestamp(text) > 5",
        "day > DATE '2024-01-01' AND day < TIMESTAMP '2026-01-01T00:00:00Z'",
        "upper(text) RLIKE 'SELECT' AND hash(id) % 10 < 3",
        "id IS DISTINCT FROM 3 AND extract(YEAR FROM day) = 2024",
        "text = 'unclosed",
    ],
)
def test_what_the_row_decides_is_taken(where: str) -> None:
    assert not_by_row(where, COLUMNS) is None


def test_a_column_of_a_functions_name_is_the_column() -> None:
    columns = ("User", "current_date", "_metadata", "Values")
    assert not_by_row("user = 'x' AND Current_Date > day AND _metadata.a = 1 AND (values > 1)", columns) is None
