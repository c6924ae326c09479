"""How far a job is: where its checkpoint lies, what it was made for, and the note in it about the output's rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from lakemill.config.predict import PredictConfig
from lakemill.engines import table_names
from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.marks import Mark
from lakemill.engines.positions import Position
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.masking import masked

DIGESTS = "sha256"
"""Key under which an identity has the digests of what it shows masked: by them it is compared."""

NOTE = "note"
"""Key of ``Note`` in what a checkpoint was made for."""


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


@dataclass(frozen=True)
class Note:
    """What a job noted of the output's rows after its last commit; it holds while nobody changed them since.

    Args:
        commit: The newest commit of the output that the job had seen then.
        transaction: Number of the job's last transaction there.
        done: Up to where the source is scored; None for nothing.
        source_commit: The last commit of the source that is scored whole; None before the first.
        compare_until: Rows of the source up to this version may have a prediction by a mode that says nothing of how
            far the job is; None if there is no such prediction.
    """

    commit: Mark
    transaction: int
    done: Position | None = None
    source_commit: Mark | None = None
    compare_until: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "commit": astuple(self.commit),
            "transaction": self.transaction,
            "done": None if self.done is None else astuple(self.done),
            "source_commit": None if self.source_commit is None else astuple(self.source_commit),
            "compare_until": self.compare_until,
        }

    @classmethod
    def read(cls, known: Mapping[str, Any] | None) -> Note | None:
        """Return the note in what a checkpoint was made for; None if it has none."""
        said = (known or {}).get(NOTE)
        if said is None:
            return None
        done, source_commit = said["done"], said["source_commit"]
        return cls(
            Mark(*said["commit"]),
            said["transaction"],
            None if done is None else Position(*done),
            None if source_commit is None else Mark(*source_commit),
            said["compare_until"],
        )


def job_identity(config: PredictConfig, key: Sequence[str], source_id: str) -> dict[str, Any]:
    """Return what a checkpoint is for; with any of it changed, its progress would skip or double rows.

    Args:
        config: The job.
        key: Columns that tell the source's rows apart.
        source_id: Delta's id of the source.
    """
    source = config.source
    return {
        "job": config.name,
        "source": masked(source.table),
        "source_id": source_id,
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


def source_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a job's identity that says whose a checkpoint is and which table was read, not how far."""
    return {name: identity[name] for name in ("job", "source", "source_id")}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_identity(known: Mapping[str, Any], identity: Mapping[str, Any], output: str | None) -> None:
    """Compare what a checkpoint was made for with what a job is.

    A lake may be moved whole: tables are told by what they are, not by where they lie.

    Args:
        known: What the checkpoint says.
        identity: What the job is.
        output: Location of the output; None if there is none.

    Raises:
        ConfigError: ``CHECKPOINT_OTHER_JOB`` or ``SOURCE_REPLACED``.
    """
    if "output" not in known:  # it says only which table was read, see ``source_of``
        check_same_source(known, identity)
        return
    note, digests = Note.read(known), known.get(DIGESTS, {})
    apart = {"source", "source_id", DIGESTS}
    if note is not None and output is not None and note.commit.is_in(output):
        apart.add("output")
    changed = [
        key
        for key in identity
        if key not in apart
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
    check_same_source(known, identity)


def check_same_source(known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse a source that is another table than the one that a checkpoint was made with.

    Raises:
        ConfigError: ``SOURCE_REPLACED``.
    """
    was = known.get("source_id")
    if was is not None and was != identity["source_id"]:
        raise source_replaced(
            identity["source"],
            f"it has the id {identity['source_id']}, and the job had read {known.get('source')!r} with the id {was}",
        )


def source_replaced(table: str, what: str) -> ConfigError:
    """Return the error for a source that is another table than the one that the job has read.

    Args:
        table: The source.
        what: How one knows.
    """
    return ConfigError(
        "SOURCE_REPLACED",
        f"the source '{table}' is another table than the one that this job has read: {what}.",
        hint="mode: full scores this table and replaces the job's predictions, then incremental runs go on from there; "
        "or give the job another name and output; or put the former table back.",
    )
