"""What workers that are threads made of small pieces, gathered in memory and encoded once, in files worth reading."""

from __future__ import annotations

import threading
from itertools import chain

import pyarrow as pa

from lakemill.engines.local.writing import GROUP_BYTES, GROUP_ROWS, FileWriter, WrittenFile


class Gathering:
    """Rows of whole pieces that wait for others; the worker that fills a row group writes it, beside the others' work.

    Args:
        folder: Where to write.
        schema: Of the rows.
    """

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._lock = threading.Lock()
        self._waiting: list[pa.Table] = []
        self._bytes = self._rows = 0

    def add(self, batches: list[pa.RecordBatch], size: int) -> WrittenFile | None:
        """Add a piece's rows; return a file with all that waited, where that is enough for one.

        Args:
            batches: The rows.
            size: Their bytes.

        Raises:
            MemoryError: There is too little to encode them; then these rows are not added, and the others wait on.
            RunError: ``STORAGE_DENIED``, ``DISK_FULL``, ``STORAGE_WRITE``.
        """
        piece = pa.Table.from_batches(batches, self._schema)
        with self._lock:
            self._waiting.append(piece)
            self._bytes, self._rows = self._bytes + size, self._rows + piece.num_rows
            if self._bytes < GROUP_BYTES and self._rows < GROUP_ROWS:
                return None
            full, self._waiting = self._waiting, []
            others = self._bytes - size
            self._bytes = self._rows = 0
        try:
            return self._written(full)
        except MemoryError:  # this piece is done again; what others gave is given once, and waits on
            with self._lock:
                self._waiting += full[:-1]
                self._bytes, self._rows = self._bytes + others, self._rows + sum(part.num_rows for part in full[:-1])
            raise

    def rest(self) -> WrittenFile | None:
        """Return a file with what still waits; None if nothing does."""
        rest, self._waiting = self._waiting, []
        return self._written(rest)

    def _written(self, pieces: list[pa.Table]) -> WrittenFile | None:
        with FileWriter(self._folder, self._schema) as writer:
            for batch in chain.from_iterable(piece.to_batches() for piece in pieces):
                writer.write(batch)
        return writer.written
