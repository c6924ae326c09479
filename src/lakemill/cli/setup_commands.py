"""Commands for the time before a job runs: what its YAML may hold. ``app`` takes them into its own."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


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


COMMANDS = (schema,)
