"""The files of a streaming checkpoint that say how far an incremental job is, and what it was made for.

Spark owns the folder; Lakemill adds one file, ``lakemill.json``. They are read through Arrow's file systems, so a
checkpoint may be on a store.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from lakemill.engines.positions import COMMITTED, WHOLE_VERSION, Position
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.files import filesystem
from lakemill_udfs.own_files import make_private

IDENTITY_FILE = "lakemill.json"
OWN_ENTRIES = ("commits", "offsets", "sources", "state", "metadata", IDENTITY_FILE)
"""What a checkpoint's folder holds, in the order in which it is deleted: what says whose it is goes last."""

REMOVED = "removed"
"""Key in ``IDENTITY_FILE`` of a checkpoint that is being deleted where folders cannot be renamed."""

UNFINISHED = "unfinished"
"""Key in ``IDENTITY_FILE`` of a checkpoint that is being made anew."""

REMOVED_SUFFIX = "~removed"
"""Of a checkpoint that is being deleted; no job's name has this letter."""

CHECKSUM_BYTES = 12
"""Of the smallest of Hadoop's checksum files: a head of 8 bytes and one sum of 4."""


NEEDED = {
    IDENTITY_FILE: ("job",),
    "metadata": ("id",),
    "offsets": ("reservoirVersion", "index", "isStartingVersion"),
}
"""What a file must say, by its name or folder; one that does not is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """A job's checkpoint folder.

    Args:
        location: Absolute path or URI.
    """

    location: str

    def identity(self) -> dict[str, Any] | None:
        """Return what the checkpoint was made for; None if there is no checkpoint yet, or ``damage`` says what."""
        return self._parsed(IDENTITY_FILE)

    def claim(self, identity: dict[str, Any]) -> None:
        """Write down what the checkpoint is made for, and what goes with it."""
        self._write(IDENTITY_FILE, json.dumps(identity, indent=1))

    def restart(self, identity: dict[str, Any], end: Position, table_id: str) -> None:
        """Make the checkpoint anew, as that of a query whose only batch ended there.

        Args:
            identity: What it is made for; a start that finds no such file, or only a part, is not misled by the rest.
            end: Up to where all is done.
            table_id: Delta's id of the source.
        """
        self.remove()
        self.claim(identity | {UNFINISHED: True})
        self.start(str(uuid.uuid4()))
        self.begin(0, end, table_id)
        self.finish(0)
        self.claim(identity)

    def scored_version(self) -> int | None:
        """Return the source's version up to which all is scored; None if the checkpoint does not say."""
        if done := self._batches("commits"):
            return self.offset(done[-1]).version
        version = (self.identity() or {}).get("source_version")
        return None if version is None else int(version)

    def finished(self) -> tuple[int, float] | None:
        """Return the source's version up to which all is scored, and when that was planned (storage's seconds).

        The checkpoint must not be damaged.

        Returns:
            None if a batch is not done, or ends within a version.
        """
        done, begun = self._batches("commits"), self._batches("offsets")
        if not done or done[-1:] != begun[-1:]:
            return None
        end = self._delta_offset(done[-1])
        if int(end["index"]) != WHOLE_VERSION:
            return None
        store, folder = filesystem(self.location)
        written = store.get_file_info(f"{folder}/offsets/{done[-1]}").mtime_ns
        return None if written is None else (int(end["reservoirVersion"]) - 1, written / 1e9)

    def damage(self) -> str | None:
        """Return what a power loss or a careless hand spoiled, None if the next start can go on from here.

        Only what that start reads is looked at: what the checkpoint was made for, the query's id, the newest batches.
        """
        offsets, commits = self._batches("offsets"), self._batches("commits")
        newest = [f"offsets/{batch}" for batch in offsets[-2:]] + [f"commits/{batch}" for batch in commits[-1:]]
        begun = [IDENTITY_FILE, "metadata", *newest] if newest else []
        broken = [name for name in begun if not self._is_whole(name)]
        if commits and commits[-1] not in offsets:
            broken.append(f"offsets/{commits[-1]}")
        if not begun and self._read(IDENTITY_FILE) is not None and not self._is_whole(IDENTITY_FILE):
            broken.append(IDENTITY_FILE)
        if not broken and REMOVED in (self.identity() or {}):
            broken.append("its removal was not ended")
        if not broken and UNFINISHED in (self.identity() or {}):
            broken.append("it was not made to its end")
        return ", ".join(broken) or None

    def _batches(self, log: str) -> list[int]:
        store, folder = filesystem(self.location)
        found = store.get_file_info(fs.FileSelector(f"{folder}/{log}", allow_not_found=True))
        return sorted(int(file.base_name) for file in found if file.base_name.isdigit())

    def _is_whole(self, name: str) -> bool:
        """Return whether a file (Spark's: its last line) is JSON, and its checksum, if it has one, is not cut short."""
        folder, _, base = name.rpartition("/")
        checksum = self._size(f"{folder}/.{base}.crc".lstrip("/"))
        return self._parsed(name) is not None and (checksum is None or checksum >= CHECKSUM_BYTES)

    def _parsed(self, name: str) -> dict[str, Any] | None:
        """Return what a file (Spark's: its last line) says; None if there is none, or it is damaged."""
        text = self._read(name) or ""
        try:
            said = json.loads(text if name == IDENTITY_FILE else text.strip().rpartition("\n")[2])
        except json.JSONDecodeError:
            return None
        needed = NEEDED.get(name.partition("/")[0], ())
        return said if isinstance(said, dict) and all(key in said for key in needed) else None

    def _size(self, name: str) -> int | None:
        store, folder = filesystem(self.location)
        size: int | None = store.get_file_info(f"{folder}/{name}").size
        return size

    def query_id(self) -> str | None:
        """Return the id that Spark gave the query at its first start."""
        said = self._parsed("metadata")
        return None if said is None else str(said["id"])

    def start(self, query_id: str) -> None:
        """Give a new checkpoint its query's id, as Spark does at a first start."""
        self._write("metadata", json.dumps({"id": query_id}))

    def position(self, batch_id: int) -> Position | None:
        """Return where a batch ends in the source; None if it was not begun."""
        name = f"offsets/{batch_id}"
        return None if self._parsed(name) is None else Position.read(self._read(name) or "")

    def begun(self) -> int | None:
        """Return the newest batch whose end was written down; None before the first one."""
        return max(self._batches("offsets"), default=None)

    def begin(self, batch_id: int, end: Position, table_id: str) -> None:
        """Write down where a batch ends, before anything of it is scored.

        Args:
            batch_id: Its number; no file of it may be there.
            end: Where it ends.
            table_id: Delta's id of the source.
        """
        self._write(f"offsets/{batch_id}", end.offsets(table_id, self._read(f"offsets/{batch_id - 1}")))

    def finish(self, batch_id: int) -> None:
        """Write down that a batch is committed."""
        self._write(f"commits/{batch_id}", COMMITTED)

    def _write(self, name: str, text: str) -> None:
        """Write a file so that a reader sees all of it or none: under another name first, where there is a rename."""
        store, folder = filesystem(self.location)
        target = f"{folder}/{name}"
        store.create_dir(target.rpartition("/")[0], recursive=True)
        is_local = isinstance(store, fs.LocalFileSystem | fs.HadoopFileSystem)
        place = f"{target.rpartition('/')[0]}/.{name.rpartition('/')[2]}.{uuid.uuid4()}.tmp" if is_local else target
        if name == IDENTITY_FILE:
            make_private(store, place)
        with store.open_output_stream(place) as stream:
            stream.write(text.encode())
        if is_local:
            store.move(place, target)

    def offset(self, batch_id: int) -> SourceOffset:
        """Return where a batch ends in the source, from Spark's offset log.

        Raises:
            ConfigError: ``CHECKPOINT_DAMAGED`` if the log has no such batch.
        """
        end = self._delta_offset(batch_id)
        version, index = int(end["reservoirVersion"]), int(end["index"])
        # The first snapshot may take several batches; an offset says whether the batch after it still belongs to it.
        is_snapshot = batch_id == 0 or bool(self._delta_offset(batch_id - 1)["isStartingVersion"])
        return SourceOffset(version - 1 if index == WHOLE_VERSION else version, is_snapshot)

    def _delta_offset(self, batch_id: int) -> dict[str, Any]:
        said = self._parsed(f"offsets/{batch_id}")
        if said is None:
            raise ConfigError(
                "CHECKPOINT_DAMAGED",
                f"'{self.location}' has no whole offsets of batch {batch_id}.",
                hint="remove the checkpoint: the next run finds what is scored by its key.",
            )
        return said

    def last_batch(self) -> int | None:
        """Return the newest batch that was committed; None before the first one."""
        return max(self._batches("commits"), default=None)

    def check_own(self, job: str) -> None:
        """Refuse a folder that holds anything and is no checkpoint of this job; nothing is changed.

        Args:
            job: The job's name.

        Raises:
            ConfigError: ``CHECKPOINT_NOT_OURS``.
        """
        entries = [name for name in self._entries() if not name.startswith(".")]
        if not entries:
            return
        others = sorted(name for name in entries if name not in OWN_ENTRIES)
        owner = job
        if IDENTITY_FILE in entries and self._is_whole(IDENTITY_FILE):
            owner = (self.identity() or {}).get("job", job)
        if others or IDENTITY_FILE not in entries or owner != job:
            found = (
                f"it is that of the job '{owner}'" if owner != job else f"it holds {', '.join((others or entries)[:3])}"
            )
            raise ConfigError(
                "CHECKPOINT_NOT_OURS",
                f"the folder '{self.location}' is not empty and no checkpoint of the job '{job}': {found}.",
                hint="name an empty folder, or one that is not there yet, as output.checkpoint: the predictions say "
                "how far the job is.",
            )

    def remove(self) -> None:
        """Remove the checkpoint's own files, and the folder if nothing else is in it.

        The folder is renamed first, in one step: a run that dies while it deletes leaves no checkpoint that passes for
        whole. What is not a checkpoint's stays where it was.
        """
        store, folder = filesystem(self.location)
        if store.get_file_info(folder).type != fs.FileType.Directory:
            return
        if isinstance(store, fs.LocalFileSystem | fs.HadoopFileSystem):
            removed = f"{folder}{REMOVED_SUFFIX}"
            if _delete_own(store, removed):  # what a run left that died, with other things in it
                removed += uuid.uuid4().hex
            store.move(folder, removed)
            if _delete_own(store, removed):
                store.move(removed, folder)
        else:  # an object store has no folders to rename, but it replaces a file in one step
            if (identity := self.identity()) is not None:
                self.claim(identity | {REMOVED: True})
            _delete_own(store, folder)

    def _entries(self) -> list[str]:
        store, folder = filesystem(self.location)
        return [file.base_name for file in store.get_file_info(fs.FileSelector(folder, allow_not_found=True))]

    def _read(self, name: str) -> str | None:
        store, folder = filesystem(self.location)
        try:
            with store.open_input_stream(f"{folder}/{name}") as stream:
                return bytes(stream.read()).decode(errors="replace")
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise ConfigError(
                "CHECKPOINT_NOT_OURS",
                f"the checkpoint '{self.location}' is another user's: only its owner may read it.",
                hint="let one user run the job and ask for its status.",
            ) from error


def _delete_own(store: fs.FileSystem, folder: str) -> bool:
    """Delete a checkpoint's own files, and the folder if nothing is left; return whether something is."""
    found = {file.base_name: file for file in store.get_file_info(fs.FileSelector(folder, allow_not_found=True))}
    for name in (part for entry in OWN_ENTRIES for part in (entry, f".{entry}.crc")):
        if name in found:
            (store.delete_file if found[name].is_file else store.delete_dir)(f"{folder}/{name}")
            del found[name]
    if not found and store.get_file_info(folder).type == fs.FileType.Directory:
        store.delete_dir(folder)
    return bool(found)


@dataclass(frozen=True)
class SourceOffset:
    """Where a batch ends in its Delta source.

    Args:
        version: Last version of the source that the batch holds.
        is_snapshot: Whether the batch is part of the first snapshot, which a new checkpoint starts with.
    """

    version: int
    is_snapshot: bool
