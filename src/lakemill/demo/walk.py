"""The demo: files, ingest, training, registry, predictions and report, on handwritten digits.

It takes the same roads as a real job: ``ingest_images``, ``Pipeline.log``, ``predict_table`` and the report. Run
again on the same folder, it does only what is not done yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from lakemill.config.base import EngineChoice
from lakemill.demo.data import DemoFiles, write_files
from lakemill.demo.model import NAME, URI, registered, train_and_register
from lakemill.engines.choice import AUTO, open_engine
from lakemill.engines.delta_log import DeltaLog
from lakemill.engines.engine import Engine, opened
from lakemill.engines.needs import Needs

if TYPE_CHECKING:
    from lakemill.config.predict import PredictConfig
    from lakemill.engines.choice import SparkSession
    from lakemill.report.values import Totals

Progress = Callable[[str], None]

CONFIG_FILE = "predict.yaml"
TRAIN, TEST = "path LIKE '%/digits/train/%'", "path LIKE '%/digits/test/%'"


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Args:
        lake: The folder that holds all of it.
        images: Rows in the table of digits.
        rejected: Files in its quarantine.
        photos: Rows in the table of photographs.
        model: URI of the registered pipeline.
        model_version: Version that scored.
        rows: Rows of the predictions table.
        rows_new: Of those, rows that this run scored.
        errors: Rows without a result.
        accuracy: Share of right labels among the rows with a result, 0..1.
        report: The HTML report.
        config: The predict job's configuration.
        registry: MLflow tracking and registry URI.
        seconds: From the call to the return.
    """

    lake: Path
    images: int
    rejected: int
    photos: int
    model: str
    model_version: str
    rows: int
    rows_new: int
    errors: int
    accuracy: float
    report: Path
    config: Path
    registry: str
    seconds: float

    def summary(self) -> str:
        """Return what the demo prints at its end: counts, places, and what to try next."""
        lake = self.lake
        facts = {
            "images": f"{self.images:,} digits in {lake}/images, {self.photos} photographs in {lake}/photos",
            "quarantine": f"{self.rejected} files that are no usable image, in {lake}/images_quarantine",
            "model": f"{self.model}, version {self.model_version}",
            "predictions": f"{self.rows:,} rows in {lake}/predictions, {self.rows_new:,} of them scored now",
            "errors": f"{self.errors}: the row says why",
            "accuracy": f"{self.accuracy:.1%} of the test digits",
            "report": str(self.report),
            "time": f"{self.seconds:.0f} s",
        }
        commands = (
            f"lakemill predict --config {self.config} --limit 10",
            f"lakemill predict --source {lake}/images --output {lake}/all_predictions --model {self.model}"
            f" --registry {self.registry}",
            f"lakemill report --config {self.config}",
            f"mlflow ui --backend-store-uri {self.registry}",
        )
        lines = [f"  {name:<13}{fact}" for name, fact in facts.items()]
        return "\n".join(("", *lines, "", "What to try next:", *(f"  {command}" for command in commands)))

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dict, for JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def run_demo(
    lake: Path, spark: SparkSession | None = None, *, choice: EngineChoice = AUTO, progress: Progress
) -> DemoResult:
    """Run the demo.

    Args:
        lake: Folder for the files, tables, models and the report; made if needed.
        spark: The session; without one, ``choice`` says what it runs on.
        choice: The engine; a new Spark session is one that starts fast.
        progress: Gets a line of text, with the seconds since the start, for each thing that happens.

    Raises:
        ConfigError: An extra, or for Spark Java, is missing.
        RunError: The engine or the storage failed; run it again and it goes on from there.
        OSError: The folder cannot be written.
    """
    from lakemill.predict.job import predict_table

    began = time.perf_counter()

    def tell(text: str) -> None:
        progress(f"{time.perf_counter() - began:5.1f} s  {text}")

    tell("writing scikit-learn's handwritten digits and photographs as files")
    files = write_files(lake / "files")
    tell(f"{files.train + files.test:,} digits and {files.broken} broken files are in {files.digits}")
    config = predict_config(lake, choice)
    registry = str(config.registry)
    os.environ.setdefault("LAKEMILL_FAST_START", "1")  # the demo is over before the full compiler would have paid
    with ThreadPoolExecutor(1) as pool:
        known = pool.submit(registered, registry)  # MLflow takes seconds to start too
        engine = open_engine(spark, Needs("lakemill demo", (config.source.table, config.output.table)), choice)
        version = ingest(spark, choice, lake, files, tell)
        model, trained_on = known.result() or (None, None)
    if model is None or trained_on != str(version):
        damage(engine, config.source.table, files)
        tell(f"training on {files.train:,} images, and logging the pipeline")
        artifacts = (lake / "mlflow_artifacts").absolute()
        model = train_and_register(engine, config.source.table, TRAIN, registry=registry, artifacts=artifacts)
    tell(f"{model.uri} is version {model.version}; scoring the test images")
    scored = predict_table(config, spark, progress=tell)
    tell(f"{scored.rows:,} rows scored")
    totals = write_page(config, engine, spark, lake / "report.html", tell)
    tell("done")
    return DemoResult(
        lake=lake,
        **count(engine, lake),
        model=model.uri,
        model_version=model.version,
        rows=totals.rows,
        rows_new=scored.rows,
        errors=totals.errors,
        accuracy=totals.accuracy or 0.0,
        report=lake / "report.html",
        config=lake / CONFIG_FILE,
        registry=registry,
        seconds=time.perf_counter() - began,
    )


def ingest(
    spark: SparkSession | None, choice: EngineChoice, lake: Path, files: DemoFiles, tell: Progress
) -> int | None:
    """Bring the photographs and the digits into tables of their own; return the version of the digits' table."""
    from lakemill.config.ingest import IngestConfig
    from lakemill.ingest.job import ingest_images

    for table, folder, label in (("photos", files.photos, None), ("images", files.digits, "parent")):
        job = IngestConfig.model_validate(
            {
                "name": table,
                "source": {"path": str(folder), "label": label},
                "output": {"table": f"{lake}/{table}"},
                "engine": choice,
            }
        )
        done = ingest_images(job, spark, progress=tell)
        tell(f"{table}: {done.added:,} files added, {done.rejected} rejected, {done.unchanged:,} known already")
    return done.version


def damage(engine: Engine, images: str, files: DemoFiles) -> None:
    """Cut one stored image in half, as a disk or a careless job might: what passed ingest need not decode later."""
    rows = engine.rows(opened(engine, images)).where(f"path LIKE '%/digits/{files.damaged}'").to_arrow()
    [row] = rows.to_pylist()
    if len(row["content"]) == row["length"]:
        cut = {**row, "content": row["content"][: row["length"] // 2]}
        engine.merge(engine.given(pa.Table.from_pylist([cut], rows.schema)), images, ["path"])


def predict_config(lake: Path, choice: EngineChoice = AUTO) -> PredictConfig:
    """Write the predict job's configuration into the lake, to be used again and changed, and return it."""
    import yaml

    from lakemill.config.predict import PredictConfig

    job = {
        "name": NAME,
        "registry": f"sqlite:///{lake / 'mlflow.db'}",
        "source": {
            "table": f"{lake}/images",
            "where": TEST,
            "key": ["path"],
            "columns": ["label"],
        },
        "pipeline": {"uri": URI, "checks": [{"name": "unsure", "expr": "out.probability < 0.5"}]},
        "output": {"table": f"{lake}/predictions"},
        "quarantine": {"max_ratio": 0.1},
    }
    if choice.name != "auto":
        job["engine"] = {"name": choice.name}
    (lake / CONFIG_FILE).write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return PredictConfig.load(lake / CONFIG_FILE)


def count(engine: Engine, lake: Path) -> dict[str, int]:
    """Return how many rows the tables of images hold."""
    names = {"images": "images", "rejected": "images_quarantine", "photos": "photos"}
    return {name: engine.rows(opened(engine, f"{lake}/{table}")).count() for name, table in names.items()}


def write_page(config: PredictConfig, engine: Engine, spark: SparkSession | None, page: Path, tell: Progress) -> Totals:
    """Write the report unless it is as new as the predictions; return how many there are, and how many right."""
    from lakemill.report.data import count_results
    from lakemill.report.page import gather, render

    if is_newer(page, Path(config.output.table)):
        tell("the report is up to date")
        return count_results(engine, config.output.table, config.source.key)
    tell("writing the report")
    report = gather(config, spark)
    page.write_text(render(report), encoding="utf-8")
    return report.totals


def is_newer(page: Path, table: Path) -> bool:
    """Return whether a report was written after the last commit to a local table."""
    commits = [file.mtime_ns for file in DeltaLog(str(table)).commit_files()]
    return page.exists() and page.stat().st_mtime_ns > max(commits)
