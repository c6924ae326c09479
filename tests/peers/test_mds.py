"""MosaicML Streaming reads what a converter exports: each row once, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from streaming import StreamingDataset

from lakemill.training import make_spark_converter
from tests.unit.training.training_tables import examples, write_examples


def test_streaming_reads_each_row_once(tmp_path: Path) -> None:
    make_spark_converter(write_examples(tmp_path / "examples", 30)).export(tmp_path / "mds", "mds")
    rows = list(StreamingDataset(local=str(tmp_path / "mds"), shuffle=False, batch_size=1))
    stored = examples(0, 30)
    assert [row["number"] for row in rows] == list(range(30))
    assert [row["label"] for row in rows] == stored["label"].to_pylist()
    assert [row["content"] for row in rows] == stored["content"].to_pylist()
    for number, row in enumerate(rows):
        assert (row["volume"] == number + np.arange(24, dtype=np.float32).reshape(2, 3, 4)).all()
        assert row["point"].dtype == np.float32
        assert row["score"] == np.float32(number / 8)
