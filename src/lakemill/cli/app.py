"""``lakemill``: one command for each job.

Heavy imports happen in the commands, so that ``lakemill --help`` is instant.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lakemill.cli import evidence_commands, job_commands, setup_commands
from lakemill.cli.options import Config, Json, Overrides, Registry, ReplaceTable, Wait
from lakemill.cli.output import MaskedStream, finish, guarded, print_unforeseen, tell
from lakemill_udfs.errors import ConfigError

USAGE_ERROR: Any = typer.BadParameter.__base__  # typer itself does not name the base of all wrong arguments

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run your models over your Delta Lake: every source row gets one prediction, or the reason why not.",
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the run failed, 2 configuration or arguments, 3 too many errors."""

    def command() -> int:
        log = logging.StreamHandler(MaskedStream(sys.stderr, is_plain=True))
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING, handlers=[log])
        return run(arguments)

    try:
        status = guarded(command)
    except Exception as error:  # Python's own report would show the values of variables
        print_unforeseen(error)
        status = 1
    raise SystemExit(status)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    Raises:
        ConfigError: ``ARGUMENTS_INVALID``; and what the command raises.
    """
    try:
        ended = app(arguments, prog_name="lakemill", standalone_mode=False)
    except typer.Abort:
        tell("stopped: nothing was done")
        return 1
    except USAGE_ERROR as error:
        if not error.format_message():  # a command without arguments, whose help was printed
            return ConfigError.exit_code
        command = error.ctx.command_path if error.ctx else "lakemill COMMAND"
        raise ConfigError(
            "ARGUMENTS_INVALID", error.format_message(), hint=f"{command} --help says what it takes."
        ) from error
    return ended if isinstance(ended, int) else 0


def _print_version(asked: bool) -> None:
    if asked:
        from lakemill import __version__

        print(f"lakemill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of ``lakemill`` itself."""


@app.command()
def ingest(
    config: Config = None,
    overrides: Overrides = None,
    source: Annotated[str | None, typer.Option(help="File, folder or URL.", show_default=False)] = None,
    output: Annotated[str | None, typer.Option(help="Delta table of images.", show_default=False)] = None,
    as_json: Json = False,
) -> int:
    """Image files or folders to a Delta table; run again, it adds what is new."""
    from lakemill.config.ingest import IngestConfig
    from lakemill.ingest.job import ingest_images

    job = IngestConfig.load(config, overrides or (), source__path=source, output__table=output)
    result = ingest_images(job, progress=tell)
    return finish(result.summary(), result.to_dict(), as_json=as_json)


@app.command()
def transform(
    config: Config = None,
    overrides: Overrides = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only N images, on the driver; writes a picture of before and after.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Images to images: grayscale, resize, crop, re-encode, or a function of your own."""
    from lakemill.config.transform import TransformConfig
    from lakemill.transform.job import transform_images
    from lakemill.transform.sample import write_sample

    job = TransformConfig.load(config, overrides or ())
    if sample is not None:
        return finish(f"before and after: {write_sample(job, sample)}", {}, as_json=False)
    result = transform_images(job, progress=tell)
    return finish(result.summary(), result.to_dict(), as_json=as_json)


@app.command()
def predict(  # noqa: PLR0917 -- typer makes each an option by name
    config: Config = None,
    overrides: Overrides = None,
    source: Annotated[str | None, typer.Option(help="Delta table to score.", show_default=False)] = None,
    model: Annotated[
        str | None,
        typer.Option(help="models:/name@alias, an MLflow model's folder or an .onnx file.", show_default=False),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Delta table of predictions.", show_default=False)] = None,
    where: Annotated[str | None, typer.Option(help="SQL predicate on the source.", show_default=False)] = None,
    key: Annotated[list[str] | None, typer.Option(help="Key column; by default path.", show_default=False)] = None,
    mode: Annotated[str | None, typer.Option(help="incremental, full, where or missing.", show_default=False)] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score N rows and show them; writes nothing.", show_default=False)
    ] = None,
    registry: Registry = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Delete the job's predictions and progress first; asks.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = False,
    replace_table: ReplaceTable = False,
    as_json: Json = False,
) -> int:
    """Score what is new in a Delta table, Delta to Delta, exactly once."""
    from lakemill.config.predict import PredictConfig
    from lakemill.engines.table_names import job_name
    from lakemill.predict.job import check_replaces, predict_table, preview

    job = PredictConfig.load(
        config,
        overrides or (),
        source__table=source,
        pipeline__uri=model,
        output__table=output,
        source__where=where,
        source__key=key or None,
        mode=mode,
        registry=registry,
        name=job_name(output) if output and not config else None,
    )
    job_commands.start_fast(job)
    if limit is not None:
        _show(preview(job, limit), as_json=as_json)
        return 0
    check_replaces(job, replace_table=replace_table)
    if reset or replace_table:
        job_commands.make_room(job, reset=reset, yes=yes)
    result = predict_table(job, progress=tell, wait=wait, replace_table=replace_table)
    return finish(result.summary(), result.to_dict(), as_json=as_json)


@app.command()
def plan(
    config: Config = None,
    overrides: Overrides = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Run one batch and print the outputs' dtypes and shapes as YAML.")
    ] = False,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Dry run: what would be scored and how, and all problems at once; scores and writes nothing."""
    from lakemill.config.predict import PredictConfig
    from lakemill.pipelines.plan_report import layout
    from lakemill.plan.job import plan_job

    found = plan_job(PredictConfig.load(config, overrides or (), registry=registry), probe=probe, progress=tell)
    if as_json:
        print(json.dumps(found.to_dict(), default=str), flush=True)
    else:
        Console(highlight=False, emoji=False).print(layout(found))
    raise typer.Exit(found.exit_code)


@app.command()
def stream(
    config: Config = None,
    overrides: Overrides = None,
    registry: Registry = None,
    as_json: Json = False,
) -> int:
    """Score what is added to a Delta table, continuously; SIGTERM or Ctrl-C ends it after the running batch."""
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.stream import predict_stream

    result = predict_stream(PredictConfig.load(config, overrides or (), registry=registry), progress=tell)
    return finish(result.summary(), result.to_dict(), as_json=as_json)


def _show(frame: Any, *, as_json: bool) -> None:
    if as_json:
        print(frame.drop(columns="metadata").to_json(orient="records", date_format="iso", default_handler=str))
        return
    from lakemill.cli.preview_table import preview_table

    Console(emoji=False).print(preview_table(frame))


@app.command()
def infer(  # noqa: PLR0917 -- typer makes each an option by name
    pipeline: Annotated[str, typer.Argument(help="YAML, .onnx file, MLflow model's folder or models:/name@alias.")],
    file: Annotated[Path, typer.Argument(help=".arrow, .parquet, .json, .df.json or an image.")],
    output: Annotated[
        Path | None, typer.Option(help=".arrow, .parquet or .json; without it JSON is printed.", show_default=False)
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="*, time, in, out, out.<name>, anomaly, metadata; by default *.")
    ] = None,
    dataset_exclude: Annotated[list[str] | None, typer.Option(help="What is left out.", show_default=False)] = None,
    dataset_separator: Annotated[str, typer.Option(help="Between a part and a name.")] = ".",
    timeout: Annotated[float | None, typer.Option(help="Seconds.", show_default=False)] = None,
    registry: Registry = None,
    data_format: Annotated[
        str | None, typer.Option(help="custom-json: one object is one row.", show_default=False)
    ] = None,
) -> int:
    """Score one file in this process, without Spark."""
    from lakemill.cli.infer_command import as_json, infer_file, write_result

    result = infer_file(
        pipeline,
        file,
        dataset=dataset or ("*",),
        dataset_exclude=dataset_exclude or (),
        dataset_separator=dataset_separator,
        timeout=timeout,
        registry=registry,
        data_format=data_format,
    )
    if output is None:
        print(as_json(result, records=file.name.endswith(".df.json")), flush=True)
        return 0
    write_result(result, output)
    return finish(f"written: {output}", {}, as_json=False)


@app.command()
def report(
    config: Config = None,
    overrides: Overrides = None,
    html: Annotated[
        Path | None, typer.Option(help="Where the page goes; by default beside the predictions.", show_default=False)
    ] = None,
) -> int:
    """One HTML page of a predictions table: opens offline."""
    from lakemill.config.predict import PredictConfig
    from lakemill.report.page import write_report

    page = write_report(PredictConfig.load(config, overrides or ()), output=html)
    return finish(f"report: {page}", {}, as_json=False)


@app.command()
def demo(
    lake: Annotated[Path, typer.Option(help="Folder that the demo fills.")] = Path("lake"),
    engine: Annotated[str, typer.Option(help="auto, local or spark.")] = "auto",
    as_json: Json = False,
) -> int:
    """Real handwritten digits: ingest, train, register, predict, report."""
    from lakemill.config.base import EngineChoice, validate
    from lakemill.demo.walk import run_demo

    choice = validate(EngineChoice, {"name": engine}, where="--engine")
    result = run_demo(lake, choice=choice, progress=tell)
    return finish(result.summary(), result.to_dict(), as_json=as_json)


for _command in (*job_commands.COMMANDS, *evidence_commands.COMMANDS, *setup_commands.COMMANDS):
    app.command()(_command)
