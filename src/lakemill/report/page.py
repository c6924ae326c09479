"""The HTML report of a predictions table: one file without scripts, which opens offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lakemill.config.own_output import writing
from lakemill.engines import table_names
from lakemill.report.comparison import comparison
from lakemill.report.values import Card, Differing, Report
from lakemill_udfs.errors import RowError
from lakemill_udfs.images.encoding import encode
from lakemill_udfs.images.thumbnails import small_image
from lakemill_udfs.masking import shown

if TYPE_CHECKING:
    from lakemill.config.predict import PredictConfig
    from lakemill.engines.choice import SparkSession
    from lakemill.engines.engine import Engine

THUMBNAIL_PIXELS = 128
LARGEST_PNG_PIXELS = 32
QUALITY = 80

Shown = TypeVar("Shown", Card, Differing)


def write_report(config: PredictConfig, spark: SparkSession | None = None, output: Path | None = None) -> Path:
    """Write the report of a predictions table.

    What the table does not have (labels, images, checks, run tables) is left out.

    Args:
        config: The job that wrote the table.
        spark: The session; without one, ``config.engine`` says what reads the table.
        output: The HTML file; by default beside the predictions table, ``<output>_report.html``, or for a catalog
            table or an object store the job's name in the working folder.

    Returns:
        The file's path.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
        ConfigError: ``FILE_NOT_WRITTEN``.
    """
    page = gather(config, spark)
    target = output or _beside(config.output.table, config.name)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(page), encoding="utf-8")
    return target


def gather(config: PredictConfig, spark: SparkSession | None = None) -> Report:
    """Return what the report of a job's predictions shows.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
    """
    from lakemill.report.data import collect, contents

    engine = report_engine(config, spark)
    key = config.source.key or ("path",)  # as predict has it
    report = collect(engine, config.output.table, key, title=config.name, source=config.source.table)
    report = replace(report, compared=comparison(config, spark))
    keys = {card.key for card in (*report.sample, *report.unsure, *report.wrong)}
    keys |= {card.key for model in report.compared for card in model.differences}
    return with_thumbnails(report, contents(engine, config.source.table, key, image_column(config), sorted(keys)))


def report_engine(config: PredictConfig, spark: SparkSession | None = None) -> Engine:
    """Return the engine that reads a job's tables for its report.

    Raises:
        TableError: ``TABLE_NOT_FOUND`` if there is no predictions table.
    """
    from lakemill.engines.choice import open_engine
    from lakemill.engines.needs import Needs

    table_names.check_path(config.output.table)
    return open_engine(spark, Needs(config.name, (config.output.table, config.source.table)), config.engine)


def render(report: Report, *, now: datetime | None = None) -> str:
    """Return the report as one HTML page; everything that comes from data is escaped.

    Args:
        report: What to show.
        now: When the report is made; the clock's time (UTC) if None.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # not of Markup: what a macro made, of values that were shown so already
    environment.finalize = lambda value: shown(value) if type(value) is str else value
    environment.filters.update(count=_count, percent=_percent, seconds=_seconds, number=_number, when=_when)
    template = resources.files("lakemill.report").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(report=report, now=now or datetime.now(UTC))


def with_thumbnails(report: Report, images: Mapping[str, bytes]) -> Report:
    """Return the report with a small image on each card whose key is in ``images`` and decodes."""
    thumbnails = {key: thumbnail_uri(content) for key, content in images.items()}

    def pictured(cards: tuple[Shown, ...]) -> tuple[Shown, ...]:
        return tuple(replace(card, thumbnail=thumbnails.get(card.key)) for card in cards)

    compared = tuple(replace(model, differences=pictured(model.differences)) for model in report.compared)
    sample, unsure, wrong = map(pictured, (report.sample, report.unsure, report.wrong))
    return replace(report, sample=sample, unsure=unsure, wrong=wrong, compared=compared)


def thumbnail_uri(content: bytes) -> str | None:
    """Return an encoded image as the ``data:`` URI of a thumbnail, or None if it does not decode."""
    try:
        image = small_image(content, THUMBNAIL_PIXELS)
        # Pixels of a tiny image are seen one by one, and PNG keeps each.
        kind = "PNG" if max(image.size) <= LARGEST_PNG_PIXELS else "JPEG"
        encoded = encode(image, kind, QUALITY)
    except RowError:
        return None  # the row's own error says why; here there is just no picture
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encoded).decode()}"


def image_column(config: PredictConfig) -> str:
    """Return the column that the pipeline's image step reads, or ``content`` where the pipeline is named by URI."""
    return next((step.image.column for step in config.pipeline.steps if step.image), "content")


def _beside(table: str, name: str) -> Path:
    local = table_names.is_path(table) and not table_names.SCHEME.match(table)
    return Path(table_names.sibling(table, "_report.html") if local else f"{name}_report.html")


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _percent(share: float) -> str:
    # Only all is shown as all, and only none as none: 9,999 of 10,000 is not 100 %.
    shown = share if share in (0.0, 1.0) else min(max(share, 0.001), 0.999)
    return (f"{shown:.0%}" if shown in (0.0, 1.0) else f"{shown:.1%}").replace("%", "\N{NARROW NO-BREAK SPACE}%")


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _when(value: datetime | None) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S") if value else ""
