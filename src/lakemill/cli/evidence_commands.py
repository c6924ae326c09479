"""Commands about several models: compare them, and promote one. ``app`` takes them into its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lakemill.cli.options import Config, Json, Overrides, Registry
from lakemill.cli.output import finish


def compare(
    config: Config = None, overrides: Overrides = None, registry: Registry = None, as_json: Json = False
) -> int:
    """What a job's predictions say of each of its models: agreement, errors, accuracy, time, with 95 % intervals."""
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.promotion import compare as compare_models

    found = compare_models(PredictConfig.load(config, overrides or (), registry=registry))
    lines = [line for model in found for line in model.lines()]
    return finish("\n".join(lines), {"models": [model.to_dict() for model in found]}, as_json=as_json)


def promote(  # noqa: PLR0917 -- typer makes each an option by name
    name: Annotated[str, typer.Argument(help="Registered name of the model.")],
    version: Annotated[str, typer.Argument(help="Its version.")],
    alias: Annotated[str, typer.Option(help="Alias that is moved.")] = "production",
    require: Annotated[
        list[str] | None, typer.Option(help="rows>=1000, agreement>=0.95, error_rate<=0.01; may be repeated.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    registry: Registry = None,
    as_json: Json = False,
) -> int:
    """Move an alias to a version, if a job's predictions support it; <output>_promotions says why."""
    from lakemill.config.predict import PredictConfig
    from lakemill.predict.promotion import promote as promote_model

    job = PredictConfig.load(config, overrides or (), registry=registry)
    done = promote_model(job, name, version, alias, require or ())
    return finish(done.summary(), asdict(done), as_json=as_json)


COMMANDS = (compare, promote)
