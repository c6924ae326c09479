"""The demo, run once for the tests that look at what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lakemill.demo.walk import DemoResult, run_demo

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def demo(_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """Run the demo into an empty folder."""
    return run_demo(tmp_path_factory.mktemp("demo") / "lake", _spark, progress=print)
