"""Transforms on Spark: at a shell, as samples, over tables of its own and of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from PIL import Image

from jobs import transform_images as job
from lakemill import LakemillError
from lakemill.cli.app import guarded, run
from lakemill.config.transform import TransformConfig
from lakemill.transform.job import transform_images
from lakemill.transform.sample import sample, write_sample
from tests.grey_images import grey_images
from tests.lake import write_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a table of six images in two labels, of which one does not decode; users' functions are importable."""
    monkeypatch.syspath_prepend(tmp_path)
    return grey_images(tmp_path)


def test_a_sample_is_made_on_the_driver_and_writes_one_picture(
    spark: SparkSession, images: str, tmp_path: Path
) -> None:
    """Before and after side by side, failures with their reason; no table is made."""
    config = TransformConfig.load(
        name="look", source__table=images, output__table=str(tmp_path / "lake/small"), transform={"size": [6, 8]}
    )
    samples = {one.path: one for one in sample(config, 10, spark)}
    assert len(samples) == 6
    good, bad = samples["/photos/0.png"], samples["/photos/5.png"]
    assert good.before is not None
    assert good.after is not None
    assert (good.before.size, good.after.size, good.error) == ((40, 30), (8, 6), None)
    assert bad.after is None
    assert "[IMAGE_DECODE]" in str(bad.error)
    sheet = write_sample(config, 2, spark, tmp_path)
    assert sheet == tmp_path / "look_sample.png"
    assert Image.open(sheet).width > 2 * 256
    assert not (tmp_path / "lake/small").exists()


def test_the_job_prints_one_json_object(
    images: str,
    spark: SparkSession,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """jobs/transform_images.py with the repository's own configuration, and its sample."""
    config = str(Path("conf/transform_images.yaml").absolute())
    arguments = [
        "--config",
        config,
        "--set",
        f"source.table={images}",
        "--set",
        "source.where=null",
        "--set",
        f"output.table={tmp_path}/lake/small",
    ]
    assert job.main([*arguments, "--json"], spark) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["rows"], facts["transformed"], facts["failed"]) == (6, 5, 1)
    monkeypatch.chdir(tmp_path)
    assert guarded(lambda: run(["transform", *arguments, "--sample", "1"])) == 0
    assert (tmp_path / "small_photos_sample.png").exists()


def test_a_transform_overwrites_only_what_it_made(tmp_path: Path, spark: SparkSession) -> None:
    write_images(spark, tmp_path / "images", 0, 2)
    write_images(spark, tmp_path / "other", 5, 3)

    def version(table: str) -> int:
        return DeltaTable(tmp_path / table).version()

    def transformed(**values: Any) -> int:
        usual = {
            "source__table": f"{tmp_path}/images",
            "output__table": f"{tmp_path}/small",
            "transform": {"size": [4, 4]},
        }
        return transform_images(TransformConfig.load(**usual | values), spark).version

    assert (transformed(), transformed()) == (0, 1)
    for values in ({"output__table": f"{tmp_path}/other"}, {"name": "another"}):
        with pytest.raises(LakemillError, match=r"^\[OUTPUT_NOT_OURS\]"):
            transformed(**values)
    spark.sql(f"ALTER TABLE delta.`{tmp_path}/small` SET TBLPROPERTIES ('lakemill.madeBy' = 'transform/another')")
    assert transformed(name="another") == 3
    for table in (f"{tmp_path}/images/", f"file:{tmp_path}/images/within", f"{tmp_path}"):
        with pytest.raises(LakemillError, match=r"^\[TABLES_OVERLAP\]"):
            transformed(output__table=table)
    assert (version("images"), version("other")) == (0, 0)
