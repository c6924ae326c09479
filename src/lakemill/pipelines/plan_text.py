"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lakemill_udfs.masking import printable

if TYPE_CHECKING:
    from lakemill.pipelines.plan_report import PlanReport

MOST_MODELS = 8  # that are named
WIDTH = 110


def render(report: PlanReport) -> str:
    """Return a plan as lines of text."""
    console = Console(width=WIDTH, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(layout(report))
    return capture.get().rstrip()


def layout(report: PlanReport) -> Group:
    """Return a plan as something that rich prints."""
    parts: list[RenderableType] = []
    if report.pipeline is not None:
        parts.append(_line("pipeline", f"{report.pipeline['name'] or 'as declared'}, {report.pipeline['version']}"))
    for model in report.models[:MOST_MODELS]:
        version = f"version {model['version']}, " if model["version"] else ""
        parts.append(
            _line(
                "model",
                f"{model['uri']} is {model['name']}, {version}sha256 {str(model['sha256'])[:12]}, "
                f"on {model['runtime']}",
            )
        )
        if model["certificate"]:
            parts.append(_line("", f"converted: {model['certificate']}"))
    if len(report.models) > MOST_MODELS:
        parts.append(_line("model", f"and {len(report.models) - MOST_MODELS} more"))
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
        parts.append(_table(("Spark setting", "value", "because"), rows))
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
