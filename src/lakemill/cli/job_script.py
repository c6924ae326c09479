"""What the scripts in ``jobs/`` share: arguments, output and exit codes, as the command line has them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from lakemill.cli.output import guarded, tell
from lakemill.config.base import JobConfig

if TYPE_CHECKING:
    from lakemill.engines.choice import SparkSession

Config = TypeVar("Config", bound=JobConfig)


class Result(Protocol):
    """What a job returns."""

    def summary(self) -> str:
        """Return the run in one line."""
        ...

    def to_dict(self) -> dict[str, object]:
        """Return the run as JSON."""
        ...


def run_job(
    description: str | None,
    config_type: type[Config],
    job: Callable[..., Result],
    argv: Sequence[str] | None,
    spark: SparkSession | None,
) -> int:
    """Read ``--config`` and ``--set``, run the job, and return the exit status.

    Args:
        description: The script's docstring.
        config_type: What the YAML file holds.
        job: Takes the configuration, the session and ``progress``.
        argv: The arguments; None takes the process's.
        spark: The session; None leaves it to the job.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the job")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the file")
    parser.add_argument("--json", action="store_true", help="last line of stdout: one JSON object")
    arguments = parser.parse_args(argv)

    def run() -> None:
        result = job(config_type.load(arguments.config, arguments.set), spark, progress=tell)
        tell(result.summary())
        if arguments.json:
            print(json.dumps(result.to_dict(), default=str), flush=True)

    return guarded(run)
