"""What a run would do, and everything that keeps it from doing it: as a value, as JSON, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lakemill.pipelines.input_forms import InputForm
from lakemill_udfs.errors import ConfigError, LakemillError
from lakemill_udfs.masking import printable

MOST_MODELS = 8  # that are named
WIDTH = 110


@dataclass(frozen=True)
class Waiting:
    """What would be scored.

    Args:
        mode: Of the job.
        rows: How many rows; None if the log does not say. With ``where`` or a lost checkpoint, at most so many.
        files: How many files; None for an older version.
        bytes: Size of those files.
        after_version: Version of the source that is scored already; None if nothing is.
        version: Newest version of the source.
        note: What makes the numbers upper bounds.
    """

    mode: str
    rows: int | None
    files: int | None
    bytes: int | None
    after_version: int | None
    version: int
    note: str | None = None


@dataclass
class PlanReport:
    """What a run would do.

    Args:
        engine: Which engine the job runs on, and why, in one line.
        pipeline: Its name and version; None where a model was not found.
        models: Each model's URI and the name, version and sha256 that it stands for now.
        inputs: How each column reaches the models.
        output_schema: Columns of the result, as Spark DDL.
        batch: ``rows`` and ``bytes`` of a model batch, ``row_bytes`` of its tensors, and the ``reason``.
        settings: The engine's settings: ``name``, ``value``, ``reason``. A job makes them for itself; ``transform``
            leaves the session to its owner, who may.
        waiting: What would be scored; None where the source is no table.
        probe: dtype and shape of each step's outputs, from one real batch.
        problems: Everything that is wrong, as ``code``, ``message`` and ``hint``.
    """

    engine: str | None = None
    pipeline: dict[str, str | None] | None = None
    models: list[dict[str, str | None]] = field(default_factory=list)
    inputs: list[InputForm] = field(default_factory=list)
    output_schema: str | None = None
    batch: dict[str, Any] = field(default_factory=dict)
    settings: list[dict[str, str]] = field(default_factory=list)
    waiting: Waiting | None = None
    probe: dict[str, dict[str, Any]] | None = None
    problems: list[dict[str, str | None]] = field(default_factory=list)

    def note_engine(self, line: str) -> None:
        """Take in which engine the job runs on."""
        self.engine = line.removeprefix("engine: ")

    @property
    def exit_code(self) -> int:
        """2 if there is a problem, else 0."""
        return ConfigError.exit_code if self.problems else 0

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return asdict(self)

    def add(self, error: LakemillError) -> None:
        """Note a problem, once."""
        problem: dict[str, str | None] = {"code": error.code, "message": error.message, "hint": error.hint}
        if problem not in self.problems:
            self.problems.append(problem)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note an error of Lakemill as a problem and go on after it."""
        try:
            yield
        except LakemillError as error:
            self.add(error)

    def __str__(self) -> str:
        return render(self)


def render(report: PlanReport) -> str:
    """Return a plan as lines of text."""
    console = Console(width=WIDTH, no_color=True, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(layout(report))
    return capture.get().rstrip()


def layout(report: PlanReport) -> Group:
    """Return a plan as something that rich prints."""
    parts: list[RenderableType] = []
    if report.engine is not None:
        parts.append(_line("engine", report.engine))
    if report.pipeline is not None:
        parts.append(_line("pipeline", f"{report.pipeline['name'] or 'as declared'}, {report.pipeline['version']}"))
    parts += _models(report)
    if report.inputs:
        parts.append(_inputs(report))
    if report.waiting is not None:
        parts.append(_line("to score", _waiting(report)))
    if report.batch:
        size = f", {_bytes(report.batch['bytes'])} of tensors" if report.batch["bytes"] is not None else ""
        row = f" ({_bytes(report.batch['row_bytes'])} a row)" if report.batch["row_bytes"] is not None else ""
        parts.append(_line("batch", f"{report.batch['rows']} rows{size}{row}; {report.batch['reason']}"))
    if report.settings:
        rows = [(setting["name"], setting["value"], setting["reason"]) for setting in report.settings]
        parts.append(_table(("setting", "value", "because"), rows))
    if report.output_schema is not None:
        parts.append(_line("result", report.output_schema))
    if report.probe is not None:
        parts += [
            Text("outputs of one batch, to paste into the pipeline:", style="bold"),
            _text(probe_yaml(report.probe)),
        ]
    for problem in report.problems:
        hint = f"\n  {problem['hint']}" if problem["hint"] else ""
        parts.append(_text(f"[{problem['code']}] {problem['message']}{hint}", style="red"))
    count = len(report.problems)
    parts.append(
        Text(f"{count} problem{'s' * (count > 1)}" if count else "no problems", style="red" if count else "green")
    )
    return Group(*parts)


def _models(report: PlanReport) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for model in report.models[:MOST_MODELS]:
        version = f"version {model['version']}, " if model["version"] else ""
        sha256 = str(model["sha256"])[:12]
        said = f"{model['uri']} is {model['name']}, {version}sha256 {sha256}, on {model['runtime']}"
        parts.append(_line("model", said))
        if model["env"]:
            parts.append(_line("", f"env: {model['env']}, in a process with the model's own packages"))
        if model["certificate"]:
            parts.append(_line("", f"converted: {model['certificate']}"))
    if len(report.models) > MOST_MODELS:
        parts.append(_line("model", f"and {len(report.models) - MOST_MODELS} more"))
    return parts


def probe_yaml(probe: dict[str, dict[str, Any]]) -> str:
    """Return what a probe found as YAML: ``outputs: {...}`` for each step."""
    return "".join(
        f"# {step}\n" + yaml.safe_dump({"outputs": outputs}, default_flow_style=None, sort_keys=False)
        for step, outputs in probe.items()
    )


def _inputs(report: PlanReport) -> Table:
    rows = [
        (form.column, form.form, form.tensor, form.conversion, "yes" if form.copies else "no", ", ".join(form.feeds))
        for form in report.inputs
    ]
    return _table(("column", "holds", "becomes", "by", "copy", "feeds"), rows)


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<9}", "bold"), printable(text))


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text, keep="\n"), style=style)


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(*names, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    return table


def _waiting(report: PlanReport) -> str:
    waiting = report.waiting
    assert waiting is not None  # noqa: S101 -- the caller looked
    rows = "an unknown number of rows" if waiting.rows is None else f"{waiting.rows:,} rows"
    files = f" in {waiting.files:,} files" if waiting.files is not None else ""
    size = f", {_bytes(waiting.bytes)}" if waiting.bytes is not None else ""
    since = f", added after version {waiting.after_version}" if waiting.after_version is not None else ""
    note = f" ({waiting.note})" if waiting.note else ""
    return f"{rows}{files}{size}{since}, source version {waiting.version}, mode {waiting.mode}{note}"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
