"""Spark's exceptions as errors of Lakemill, without the row data that Spark's own messages can hold.

An executor's exception reaches the driver as text, inside a ``PythonException``, a ``StreamingQueryException`` or a
bare ``Py4JJavaError`` with a page of Java frames. Errors of ``lakemill_udfs`` are found again in that text by the mark
that workers got from here (``lakemill_udfs.voice``); of all others only what is safe is kept: the kind, Spark's error
condition, file and line.

    try:
        frame.write.save(path)
    except SPARK_FAILURES as error:
        raise spark_failure(error) from error
"""

from __future__ import annotations

import functools
import re
import uuid
from pathlib import PurePath
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from lakemill.engines.full_text import kept_text
from lakemill.engines.output_rules import append_only
from lakemill.engines.spark.session import NO_DELTA_HINT
from lakemill_udfs import errors
from lakemill_udfs.errors import LakemillError, RunError, SetupError, TableError
from lakemill_udfs.voice import each, whole

SPARK_FAILURES = (PySparkException, Py4JError)
"""What PySpark raises when a job fails; everything else is a bug of ours and passes."""

RAISED = re.compile(r"Traceback \(most recent call last\):\n((?: {2,}.*\n)+)(\S.*)$", re.MULTILINE)
"""A traceback of Python: its frames, and the line after them. What follows is an exception's own text: foreign."""

MARK = uuid.uuid4().hex
"""What workers put behind the errors that they report to this process: no row's text can know it."""

CODED = re.compile(rf"^lakemill_udfs\.voice\.WorkerError: (.*) \((\w+) {MARK}\)$", re.MULTILINE)
VERSIONS = re.compile(r"different (?:minor )?version:? (\S+?) than that in driver:? (\d\S*?)[,.]?\s")
MODULE = re.compile(r"ModuleNotFoundError: No module named '(lakemill_udfs|numpy|pyarrow|PIL|polars|pandas)\b")
"""A module that a worker needs before it can report anything. Others it reports itself."""

FRAME = re.compile(r'^  File "([\w./<>-]{1,300})", line (\d+), in ([\w.<>]{1,100})$', re.MULTILINE)
KIND = re.compile(r"[A-Za-z_][\w.]{0,100}(?=:|$)")
CONDITION = re.compile(r"(?:Exception|Error): \[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
CONSTRAINT = re.compile(
    r"(CHECK constraint \S+ \(.*\)) violated by row|NOT NULL constraint violated for column: ([^\n]*[^\n.])"
)
UNREAD = re.compile(r"(?:Encountered error while reading file|Could not read footer for file:?) (\S+?)\.?(?:\s|$)")
DENIED = re.compile("DELTA_CANNOT_CREATE_LOG_PATH|AccessControlException|AccessDenied|Permission denied|Read-only file")
JAVA_CLASS = re.compile(r"^(?:Caused by)?: ([\w.$]+(?:Exception|Error))", re.MULTILINE)


def spark_failure(error: Exception) -> LakemillError:
    """Return the error to raise, ``from`` the one that PySpark raised.

    Args:
        error: One of ``SPARK_FAILURES``, or an error of Lakemill, which is returned as it is.
    """
    if isinstance(error, LakemillError):
        return error
    text = spark_text(error)
    foreseen = None if _is_of_a_workers_code(text) else _table(text) or _machine(text)
    return _coded(text) or _setup(text) or foreseen or _other(error, text)


def reported(function: Any) -> Any:
    """Return a function from record batches to record batches as a worker runs it, which reports to this process."""
    return functools.partial(each, MARK, function)


def reported_whole(function: Any) -> Any:
    """Return a function of a whole group as a worker runs it, which reports to this process."""
    return functools.partial(whole, MARK, function)


def spark_text(error: Exception) -> str:
    """Return everything Spark says of a failure; it can hold row data, so it is for looking into, not for showing."""
    cause = getattr(error, "cause", None)  # CapturedException keeps Java's causes apart from __cause__
    return f"{error}\n" + (spark_text(cause) if isinstance(cause, Exception) else "")


def _is_of_a_workers_code(text: str) -> bool:
    """Return whether a worker's Python raised an exception of its own, in whose text any words may stand."""
    raised = RAISED.findall(text)
    return bool(raised) and not raised[-1][1].startswith(("py4j.", "pyspark."))


def _coded(text: str) -> LakemillError | None:
    coded = CODED.findall(text)
    if not coded:
        return None
    line, name = coded[-1]
    match = errors.CODE.match(line)
    kind = getattr(errors, name, RunError)
    return kind(match[1], match[2], hint=match[3]) if match else None


def _setup(text: str) -> LakemillError | None:
    if "PYTHON_VERSION_MISMATCH" in text:
        versions = VERSIONS.search(text)
        found = f": workers run {versions[1]}, the driver {versions[2]}" if versions else ""
        return SetupError(
            "PYTHON_MISMATCH",
            f"workers run another Python version than the driver{found}.",
            hint="set spark.pyspark.python (or PYSPARK_PYTHON) to an interpreter of the driver's version "
            "that every executor has.",
        )
    missing = [match for _, line in RAISED.findall(text) if (match := MODULE.match(line))]
    if missing:
        module = missing[-1][1]
        ours = module == "lakemill_udfs"
        return SetupError(
            "WORKER_MODULE_MISSING",
            f"the Python workers have no module '{module}'.",
            hint="add --py-files dist/lakemill.zip (`make dist` writes it)."
            if ours
            else "install it in the executors' Python, or ship it with --archives.",
        )
    if "Cannot find catalog plugin class" in text or re.search(r"Failed to find the data source: delta\b", text):
        return SetupError("SESSION_NO_DELTA", "the Spark session does not find Delta's classes.", hint=NO_DELTA_HINT)
    return None


def _table(text: str) -> LakemillError | None:
    """Return what a table's own rules or files refuse; their names and conditions are no row data."""
    constraint = CONSTRAINT.search(text)
    if constraint:
        named = constraint[1] or f"{constraint[2]} must not be null"
        return TableError(
            "OUTPUT_CONSTRAINT",
            f"a rule of the table that is written refuses rows of this batch: {named}; nothing of it was written.",
            hint="ALTER TABLE ... DROP CONSTRAINT, or ALTER COLUMN ... DROP NOT NULL; or write to a table of the job's "
            "own.",
        )
    if "DELTA_CANNOT_MODIFY_APPEND_ONLY" in text:
        return append_only("the table that is written")
    unread = UNREAD.search(text)
    if unread:
        return RunError(
            "STORAGE_READ",
            f"the file '{unread[1]}' cannot be read.",
            hint="check the storage and its permissions; a damaged file is restored from a backup or scored as new.",
        )
    return None


def _machine(text: str) -> LakemillError | None:
    if "java.lang.OutOfMemoryError" in text:
        return RunError(
            "HEAP_TOO_SMALL",
            "a JVM of Spark ran out of memory.",
            hint="raise spark.driver.memory (local mode) or spark.executor.memory.",
        )
    if "No space left on device" in text:
        return RunError("DISK_FULL", "a disk is full.", hint="free it, or point spark.local.dir to a larger one.")
    if "Python worker exited unexpectedly" in text:
        return RunError(
            "WORKER_DIED",
            "a Python worker died: most often out of memory, or a crash in native code.",
            hint="lower engine.batch_rows or engine.batch_bytes; the worker's stderr has a native stack.",
        )
    if DENIED.search(text):
        return TableError(
            "STORAGE_DENIED",
            "the storage refused to read or write.",
            hint="check the table's path, its permissions and the credentials of this session.",
        )
    return None


def _other(error: Exception, text: str) -> LakemillError:
    hint = kept_text(text, "Spark's")
    if raised := RAISED.findall(text):
        frames, last = raised[-1]
        kind = KIND.match(last)
        where = FRAME.findall(frames)
        if kind and where:
            file, line, function = where[-1]
            place = f"{function} ({PurePath(file).name}, line {line})"
            return RunError("WORKER_FAILED", f"{kind[0]} in {place}.", hint=hint)
    condition = error.getCondition() if isinstance(error, PySparkException) else None
    match = None if condition else CONDITION.search(text) or JAVA_CLASS.search(text)
    return RunError(
        "SPARK_FAILED", f"Spark stopped with {condition or (match and match[1]) or type(error).__name__}.", hint=hint
    )
