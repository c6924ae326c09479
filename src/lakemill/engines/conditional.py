"""Commits that are conditional on the state that their rows were chosen from.

All commits of a job into a table carry transactions of one application, numbered one after the other. Delta makes a
number once, so of two runs that chose their rows from the same state only one commit lands, whatever their modes are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lakemill.engines.engine import Engine, Transaction, location_of, opened
from lakemill.engines.marks import After, Mark, commits_after, last_transaction, newest_mark
from lakemill_udfs.errors import RunError

Count = Callable[[int], object]


@dataclass
class TableState:
    """A table as a job knows it: its newest commit, and the job's last transaction in it.

    Args:
        table: Its name.
        location: Its absolute path or URI.
        app: Of the job's transactions.
        mark: Of the newest commit that the job has seen.
        transaction: Number of the job's last transaction up to it.
        count: Counts the job's own rows at a version, in a way that any which go change.
    """

    table: str
    location: str
    app: str
    mark: Mark
    transaction: int
    count: Count | None = None

    @classmethod
    def read(cls, engine: Engine, table: str, app: str, count: Count | None = None) -> TableState:
        """Return the state of a table as it is now.

        Args:
            engine: Where the job runs.
            table: Path or catalog name; it must be there.
            app: Of the job's transactions.
            count: Counts the job's own rows at a version; without it, rows that went are not known to be others'.

        Raises:
            TableError: ``TABLE_NOT_FOUND``.
            RunError: ``TABLE_LOG`` if the log lacks the file of its newest commit.
        """
        snapshot = opened(engine, table)
        location = location_of(snapshot)
        mark = newest_mark(location, snapshot.version)
        if mark is None:
            raise RunError(
                "TABLE_LOG",
                f"the log of '{table}' has no file of its newest version {snapshot.version}.",
                hint="its `_delta_log` was not copied or kept whole: restore it.",
            )
        return cls(table, location, app, mark, last_transaction(location, mark.version, app), count)

    def is_unchanged_since(self, mark: Mark, transaction: int) -> bool:
        """Return whether nothing that a job knows of its rows can have changed from a mark up to this state.

        Args:
            mark: Of the newest commit that the job saw then.
            transaction: Its last transaction then.
        """
        if transaction != self.transaction or mark.version > self.mark.version:
            return False
        after = commits_after(self.location, mark, self.app)
        if after is None:
            return False
        seen = (one for one in after if one.mark.version <= self.mark.version)
        return not any(one.has_removed and not one.is_other_job for one in seen)

    def look(self) -> None:
        """Make sure that the table is as it was but for rows that others added.

        Raises:
            RunError: ``RUN_OVERTAKEN`` if another run of the job committed, ``OUTPUT_CHANGED`` if rows went or the
                table is another one.
        """
        after = commits_after(self.location, self.mark, self.app)
        if after is None:
            raise self._changed("it is another table now")
        for one in after:
            if one.transaction is not None:
                raise self._overtaken()
            if self._takes(one):
                raise self._changed(f"its version {one.mark.version} took rows away or changed them")
            self.mark = one.mark

    def commit(self, write: Callable[[Transaction], bool], *, is_needed: bool = True, looks: bool = True) -> bool:
        """Make one commit, unless another run of the job made one since this state.

        Args:
            write: Makes it with the transaction that it gets; returns whether it made one.
            is_needed: Whether there is something to write for sure.
            looks: Whether changes by others matter: nothing is written after them.

        Returns:
            Whether it was made.

        Raises:
            RunError: ``RUN_OVERTAKEN``, ``OUTPUT_CHANGED``, ``COMMIT_LOST``, or what ``write`` raises.
        """
        if looks:
            self.look()
        number = self.transaction + 1
        made = write(Transaction(self.app, number))
        after = list(commits_after(self.location, self.mark, self.app) or ())
        own = next((one for one in after if one.transaction is not None), None)
        if not made:
            if own is not None:
                raise self._overtaken()
            if is_needed:
                raise self._lost("nothing was written")
            return False
        if own is None or own.transaction != number:
            raise self._lost("its log does not have the commit")
        between = [one for one in after if one.mark.version < own.mark.version]
        self.mark, self.transaction = own.mark, number
        if looks and any(self._takes(one) for one in between):
            raise RunError(
                "OUTPUT_CHANGED",
                f"rows of '{self.table}' went or changed in the moment in which this run committed version "
                f"{own.mark.version} to it.",
                hint="mode: missing scores rows without a prediction, mode: full all of them.",
            )
        return True

    def _takes(self, one: After) -> bool:
        """Return whether a commit took rows of the job away, or may have."""
        if not one.has_removed or one.is_other_job:
            return False
        return self.count is None or self.count(one.mark.version - 1) != self.count(one.mark.version)

    def _overtaken(self) -> RunError:
        return RunError(
            "RUN_OVERTAKEN",
            f"another run of '{self.app}' was committed to '{self.table}' first; this one wrote nothing more.",
            hint="run it again.",
        )

    def _changed(self, what: str) -> RunError:
        return RunError(
            "OUTPUT_CHANGED",
            f"'{self.table}' was changed while this run went on: {what}; nothing more was written.",
            hint="run it again: it goes on from what the rows say.",
        )

    def _lost(self, what: str) -> RunError:
        return RunError(
            "COMMIT_LOST",
            f"a commit to '{self.table}' with transaction {self.transaction + 1} of '{self.app}' was not made: {what}.",
            hint="run it again; if it comes back, somebody else writes transactions in this job's name.",
        )
