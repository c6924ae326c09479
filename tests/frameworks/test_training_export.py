"""What a converter exports is read by the formats' own libraries: each row once, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset

from lakemill import LakemillError
from lakemill.training import SparkDatasetConverter, make_spark_converter
from tests.unit.training.training_tables import examples, write_examples

ROWS = 30
STORED = examples(0, ROWS)


@pytest.fixture
def converter(tmp_path: Path) -> SparkDatasetConverter:
    return make_spark_converter(write_examples(tmp_path / "examples", ROWS))


def test_webdataset_reads_each_row_once(converter: SparkDatasetConverter, tmp_path: Path) -> None:
    converter.export(tmp_path / "tars", "webdataset", shard_rows=12)
    shards = sorted(map(str, (tmp_path / "tars").iterdir()))
    assert len(shards) == 3
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    columns = [json.loads(sample["columns.json"]) for sample in samples]
    assert [row["number"] for row in columns] == list(range(ROWS))
    assert [row["label"] for row in columns] == STORED["label"].to_pylist()
    assert [sample["content.png"] for sample in samples] == STORED["content"].to_pylist()
    decoded = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    for number, sample in enumerate(decoded):
        assert (sample["volume.npy"] == number + np.arange(24, dtype=np.float32).reshape(2, 3, 4)).all()
        assert sample["point.npy"].tolist() == [number, 0.5]


def test_datasets_reads_each_row_once(converter: SparkDatasetConverter, tmp_path: Path) -> None:
    converter.export(tmp_path / "arrow", "datasets", shard_rows=12)
    rows = datasets.load_from_disk(str(tmp_path / "arrow"))
    assert rows.num_rows == ROWS
    assert rows["number"][:] == list(range(ROWS))
    assert rows["content"][:] == STORED["content"].to_pylist()
    assert rows.features["volume"] == datasets.Array3D((2, 3, 4), "float32")
    row = rows.with_format("numpy")[7]
    assert (row["volume"] == 7 + np.arange(24, dtype=np.float32).reshape(2, 3, 4)).all()
    assert row["point"].tolist() == [7, 0.5]


def test_what_cannot_be_exported_is_said(converter: SparkDatasetConverter, tmp_path: Path) -> None:
    for folder, form in ((tmp_path / "new", "tfrecord"), (tmp_path, "webdataset")):
        with pytest.raises(LakemillError, match="TRAINING_EXPORT"):
            converter.export(folder, form)
