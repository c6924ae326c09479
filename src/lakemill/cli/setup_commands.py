"""Commands for the time before a job runs: doctor, init and schema. ``app`` takes them into its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lakemill.cli.options import Config, Json, Overrides, Registry
from lakemill.cli.output import console, finish
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.masking import printable


def doctor(config: Config = None, overrides: Overrides = None, registry: Registry = None, as_json: Json = False) -> int:
    """What this machine, and a job with --config, have and lack, and what to do; exit code 2 if something is wrong."""
    from lakemill.cli.doctor import examine
    from lakemill.config.predict import PredictConfig

    job = PredictConfig.load(config, overrides or ()) if config or overrides else None
    findings = []
    for finding in examine(job, registry):
        console.print(
            printable(finding.line()), markup=False, style={"wrong": "red", "missing": "yellow"}.get(finding.state)
        )
        findings.append(finding)
    if as_json:
        print(json.dumps([finding.to_dict() for finding in findings]), flush=True)
    raise typer.Exit(ConfigError.exit_code if any(finding.state == "wrong" for finding in findings) else 0)


def init(
    file: Annotated[Path, typer.Argument(help="YAML file to write.")],
    source: Annotated[str, typer.Option(help="Delta table to score.")],
    model: Annotated[str, typer.Option(help="models:/name@alias, an MLflow model's folder or an .onnx file.")],
    output: Annotated[str, typer.Option(help="Delta table of predictions.")],
    registry: Registry = None,
) -> int:
    """Write a predict job's YAML from a table and a model, filled in and commented; scores nothing."""
    from lakemill.config.own_output import writing
    from lakemill.plan.draft import draft_job

    if file.exists():
        raise ConfigError(
            "CONFIG_EXISTS", f"there is a file '{file}' already.", hint="give another name, or remove it."
        )
    text = draft_job(source, model, output, registry=registry, file=str(file))
    with writing(file):
        file.write_text(text, encoding="utf-8")
    return finish(f"written: {file}; now look at it, then: lakemill plan --config {file}", {}, as_json=False)


def schema(
    job: Annotated[Literal["predict", "ingest", "transform"], typer.Argument(help="Whose YAML.")] = "predict",
) -> int:
    """Print the JSON schema of a job's YAML: with it an editor completes, explains and checks the file.

    The first line of a YAML file tells an editor where it is: ``# yaml-language-server: $schema=predict.json``.
    """
    from lakemill.config.ingest import IngestConfig
    from lakemill.config.json_schema import job_schema
    from lakemill.config.predict import PredictConfig
    from lakemill.config.transform import TransformConfig

    configs = {"predict": PredictConfig, "ingest": IngestConfig, "transform": TransformConfig}
    print(json.dumps(job_schema(configs[job]), indent=2))
    return 0


def register(  # noqa: PLR0917 -- typer makes each an option by name
    model: Annotated[str, typer.Argument(help="A model's file or folder: .onnx, .skops, .pkl, XGBoost's .json, ...")],
    name: Annotated[str, typer.Option(help="What it is registered as.")],
    alias: Annotated[str | None, typer.Option(help="Alias of the new version.", show_default=False)] = None,
    framework: Annotated[str, typer.Option(help="Which runtime takes it.")] = "auto",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the runtime, as method=predict_proba.", show_default=False)
    ] = None,
    example: Annotated[
        Path | None, typer.Option(help="Rows to try it on: .parquet, .arrow or .json.", show_default=False)
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Load a file that is code itself, as a pickle.")] = False,
    convert: Annotated[str | None, typer.Option(help="onnx, if it agrees on the rows.", show_default=False)] = None,
    quantize: Annotated[str | None, typer.Option(help="int8, if it agrees on the rows.", show_default=False)] = None,
    tolerance: Annotated[float, typer.Option(help="By how much converted numbers may differ.")] = 1e-4,
    registry: Registry = None,
    as_json: Json = False,
) -> int:
    """Look at a model, run it once and register it as an ordinary MLflow model."""
    from lakemill.in_process.files import read_data
    from lakemill.pipelines.registering import log_model

    pairs = [one.partition("=") for one in option or ()]
    logged = log_model(
        model,
        name=name,
        framework=framework,
        input_example=None if example is None else read_data(example),
        options={key: value for key, _, value in pairs},
        alias=alias,
        registry=registry,
        trust=trust,
        convert=convert,
        quantize=quantize,
        tolerance=tolerance,
    )
    return finish(logged.summary(), logged.to_dict(), as_json=as_json)


COMMANDS = (doctor, init, schema, register)
