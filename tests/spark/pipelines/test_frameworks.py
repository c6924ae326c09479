"""Models of every light framework on Spark, as the framework called directly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lakemill import Pipeline
from tests.models.framework_models import BY_ARRAY, CASES, FRAME, numbers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("name", CASES)
def test_on_spark(spark: SparkSession, tmp_path: Path, name: str) -> None:
    case = CASES[name](tmp_path)
    frame = FRAME.assign(id=range(len(FRAME)))
    if name in BY_ARRAY:
        frame["inputs"] = list(FRAME.to_numpy())
    rows = Pipeline((case.step,)).transform(spark.createDataFrame(frame), columns=["id"]).orderBy("id").collect()
    assert [row["error"] for row in rows] == [None] * len(FRAME)
    found = numbers([row["out"][case.output] for row in rows])
    np.testing.assert_allclose(found.reshape(case.expected.shape), case.expected, rtol=1e-6)
