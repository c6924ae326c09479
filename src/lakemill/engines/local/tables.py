"""A Delta table at one version, read from its log by delta-rs: what it is, and the files that hold its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray

from lakemill.engines.local.features import check_readable, check_writable, is_mapped, unsupported
from lakemill.engines.local.predicates import Bounds, Predicate
from lakemill_udfs.errors import TableError
from lakemill_udfs.files import URI

STATISTICS = ("min.", "max.", "null_count.")
"""How columns of statistics begin in what delta-rs says of a table's files."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table.

    Args:
        path: Absolute path or URI.
        size: In bytes.
        rows: Rows that are physically in it; None if the log does not say.
        modified_ms: When it was written, in milliseconds since 1970, as the log says.
        partition: Value of each partition column, typed.
        dropped: Which of its rows do not count, one bit a row from the file's first row on (``numpy.packbits``); None
            if all count. Deletion vectors are such bits, and so is every other choice of rows.
    """

    path: str
    size: int
    rows: int | None
    modified_ms: int
    partition: tuple[tuple[str, object], ...] = ()
    dropped: bytes | None = field(default=None, repr=False)

    def dropped_rows(self, rows: int) -> NDArray[np.bool_] | None:
        """Return for each of the file's first ``rows`` rows whether it does not count; None if all count."""
        if self.dropped is None:
            return None
        bits = np.unpackbits(np.frombuffer(self.dropped, np.uint8)).astype(bool)
        return np.pad(bits, (0, max(0, rows - len(bits))))[:rows]


@dataclass(frozen=True)
class Snapshot:
    """A table at one version.

    Args:
        location: Absolute path or URI.
        table: As delta-rs loaded it; not changed by this engine, so that a commit made on it is conditional on it.
    """

    location: str
    table: DeltaTable = field(repr=False)

    @property
    def id(self) -> str:
        """Return the id that the table was given when it was made."""
        return str(self.table.metadata().id)

    @property
    def version(self) -> int:
        """Return the version."""
        return int(self.table.version())

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the schema in Arrow's types; a field's metadata is Spark's, as ``lakemill.dtype``."""
        return pa.schema(self.table.schema().to_arrow())

    @property
    def properties(self) -> Mapping[str, str | None]:
        """Return the table's properties."""
        return dict(self.table.metadata().configuration)

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """Return the columns whose values stand in the log and not in the files."""
        return tuple(self.table.metadata().partition_columns)

    def transaction_version(self, app_id: str) -> int | None:
        """Return the last transaction that an application made up to this version; None if it made none."""
        version: int | None = self.table.transaction_version(app_id)
        return version

    def check_writable(self) -> None:
        """Refuse a table that a write would break.

        Raises:
            SetupError: ``ENGINE_LOCAL``.
        """
        check_writable(self.location, self.table, self.schema)

    def files(self, where: Predicate | None = None) -> list[DataFile]:
        """Return the files that may hold rows of ``where``, oldest first, then by path: as Delta's stream numbers them.

        Args:
            where: Files that cannot hold such a row, by their partition or statistics, are left out.
        """
        deleted, partitions = self._deleted_rows(), self.partition_columns
        use_statistics = not is_mapped(self.properties)  # there they stand under the files' names of the columns
        kept: list[tuple[int, str, DataFile]] = []
        for action in self._actions(use_statistics and where is not None):
            path, partition = absolute(self.location, action["path"]), {p: action[f"partition.{p}"] for p in partitions}
            dropped = deleted.pop(path, None)
            if where is not None and not where.may_hold(Bounds(partition, action if use_statistics else {})):
                continue
            rows, modified = action["num_records"], action["modification_time"]
            file = DataFile(path, action["size_bytes"], rows, modified, tuple(partition.items()), dropped)
            kept.append((modified, action["path"], file))
        if deleted:  # never read rows that are deleted
            raise unsupported(f"the deletion vectors of '{self.location}' name files that its log does not.")
        return [file for _, _, file in sorted(kept, key=lambda entry: entry[:2])]

    def _actions(self, with_statistics: bool) -> list[dict[str, Any]]:
        """Return what the log says of each file."""
        actions = self.table.get_add_actions(flatten=True)
        # pa.table would ask whether it is a DataFrame, and import pandas for that: 0.3 s.
        rows = pa.RecordBatchReader.from_stream(actions).read_all()
        if not with_statistics:
            rows = rows.select([name for name in rows.schema.names if not name.startswith(STATISTICS)])
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def _deleted_rows(self) -> dict[str, bytes]:
        """Return the deletion vectors by the path of their file, one bit a row."""
        if "deletionVectors" not in (self.table.protocol().reader_features or ()):
            return {}
        vectors = pa.table(self.table.deletion_vectors())
        keeps = (np.asarray(kept.values.to_numpy(zero_copy_only=False)) for kept in vectors["selection_vector"])
        paths = [unquote(path.removeprefix("file://")) for path in vectors["filepath"].to_pylist()]
        return {path: np.packbits(~kept).tobytes() for path, kept in zip(paths, keeps, strict=True)}


class TableFiles(Sequence[DataFile]):
    """A snapshot's files, listed when they are first looked at: a run with nothing new never does.

    Args:
        snapshot: Of the table.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @cached_property
    def _files(self) -> list[DataFile]:
        return self._snapshot.files()

    @overload
    def __getitem__(self, index: int) -> DataFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DataFile]: ...
    def __getitem__(self, index: int | slice) -> DataFile | Sequence[DataFile]:
        return self._files[index]

    def __len__(self) -> int:
        return len(self._files)


def absolute(location: str, path: str) -> str:
    """Return where a file of a log is: its path there is a URI reference, relative to the table."""
    return unquote(path) if URI.match(path) else f"{location.rstrip('/')}/{unquote(path)}"


def open_table(location: str, version: int | str | None = None) -> Snapshot | None:
    """Return a table; None if there is none.

    Args:
        location: Absolute path or URI.
        version: A number, or a time in ISO 8601; None is the newest.

    Raises:
        TableError: ``TABLE_VERSION`` if it has no such version.
        SetupError: ``ENGINE_LOCAL`` if it has a feature that would be read wrong.
    """
    try:
        table = DeltaTable(location)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        raise unsupported(f"delta-rs does not open the table '{location}': {str(error).splitlines()[0]}") from error
    if version is not None:
        try:
            table.load_as_version(int(version) if str(version).isdigit() else str(version))
        except (DeltaError, ValueError) as error:
            raise TableError(
                "TABLE_VERSION",
                f"table '{location}' cannot be read at version '{version}'; the newest is {table.version()}.",
                hint="its log says what versions there are; older ones may be cleaned up.",
            ) from error
    snapshot = Snapshot(location, table)
    check_readable(location, table, snapshot.schema)
    return snapshot
