"""Reports on the local engine: the tests of Spark's suite, without Spark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakemill.engines.local.engine import LocalEngine
from tests.spark.report.test_report import (  # noqa: F401 -- collected here too, with this module's engine
    test_a_classifier_with_images,
    test_a_regression_without_labels_or_images,
    test_an_empty_table_and_none_at_all,
)


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    """Yield what reads the tables."""
    with LocalEngine() as opened:
        yield opened
