"""How far a job is: where its checkpoint lies, what it was made for, and what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.masking import masked

DIGESTS = "sha256"
"""Key under which an identity has the digests of what it shows masked: by them it is compared."""


def checkpoint_of(config: PredictConfig) -> Checkpoint:
    """Return the checkpoint of a job: ``output.checkpoint``, or ``<output>_checkpoint/<name>``.

    Raises:
        ConfigError: ``CHECKPOINT_UNKNOWN`` if the output is a catalog name and no checkpoint is set.
    """
    given, output = config.output.checkpoint, config.output.table
    if given is not None:
        return Checkpoint(table_names.location(given if table_names.is_path(given) else "./" + given))
    if not table_names.is_path(output):
        raise ConfigError(
            "CHECKPOINT_UNKNOWN",
            f"the output '{output}' is a catalog name, so the checkpoint has no place.",
            hint="output: {checkpoint: s3://bucket/checkpoints/<job>}",
        )
    return Checkpoint(f"{table_names.location(table_names.sibling(output, '_checkpoint'))}/{config.name}")


def job_identity(config: PredictConfig, key: Sequence[str]) -> dict[str, Any]:
    """Return what a checkpoint is for; with any of it changed, its progress would skip or double rows.

    Args:
        config: The job.
        key: Columns that tell the source's rows apart.
    """
    source = config.source
    return {
        "job": config.name,
        "source": masked(source.table),
        "where": source.where and masked(source.where),
        "key": list(key),
        "output": masked(config.output.table),
        "changes": source.changes,
        "change_column": source.change_column,
        DIGESTS: {
            "source": _digest(source.table),
            "where": _digest(source.where or ""),
            "output": _digest(config.output.table),
        },
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_identity(known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Compare what a checkpoint was made for with what a job is.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` if they differ.
    """
    digests = known.get(DIGESTS, {})
    changed = [
        key
        for key in identity
        if key != DIGESTS
        and (digests[key] != identity[DIGESTS][key] if key in digests else known.get(key) != identity[key])
    ]
    if changed:
        raise ConfigError(
            "CHECKPOINT_OTHER_JOB",
            "the job's checkpoint was made with another "
            + ", ".join(f"{key} ({known.get(key)!r}, now {identity[key]!r})" for key in changed)
            + ".",
            hint="give the changed job another name and output; or start over with --reset or mode: full.",
        )
