"""What a failure of a step is: told by the exception's class alone, for its text may be a row's."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any

from lakemill_udfs.errors import LakemillError, RowError, RunError, SetupError

ENVIRONMENT = (ImportError, ConnectionError, TimeoutError, PermissionError)
"""Failures that are no row's fault where several rows have them: the task fails and Spark repeats it."""

NO_VALUES_FAULT = (OSError, NameError)
"""Failures that are no value's fault where all rows have the same: no such file, no such name."""

OUT_OF_MEMORY = (
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError",
)
"""Classes of the runtimes that say what ``MemoryError`` says; numpy's, pyarrow's and CuPy's are ``MemoryError`` s."""


class ForeignError(Exception):
    """Stands for what only Lakemill or Python itself may raise, and a user's code raised.

    Args:
        kind: The class's name.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)


def foreign(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a user's function so that it never speaks with Lakemill's voice, and never ends the process."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, LakemillError) or not isinstance(error, Exception):  # sys.exit, or a panic of Rust
                raise ForeignError(type(error).__name__) from None
            raise

    return called


def kind_of(error: BaseException) -> str:
    """Return the name of an exception's class; of one that ``foreign`` stands for, of that."""
    return error.kind if isinstance(error, ForeignError) else type(error).__name__


def fault_of(error: BaseException) -> tuple[str, str, str] | None:
    """Return what tells one failure from another, if it is of a kind that no row's value causes by itself.

    Returns:
        The class's name, the place in the code that raised it (``file:line``), and its text, which never leaves this
        process: a path that is in a row differs from row to row, that of a missing weights file does not.
    """
    if not isinstance(error, NO_VALUES_FAULT):
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return type(error).__name__, place, str(error)


def same_fault(faults: Sequence[tuple[str, str, str] | None], rows: int) -> RunError | None:
    """Return the error that stops a run where every row of a batch failed by one and the same fault.

    Args:
        faults: Of each row that failed.
        rows: Of the batch; one row alone cannot tell whose fault it is.
    """
    first = faults[0] if faults else None
    if first is None or rows < 2 or len(faults) < rows or any(fault != first for fault in faults):
        return None
    return RunError(
        "STEP_ENVIRONMENT",
        f"all {rows} rows of a batch failed by one and the same {first[0]} ({first[1]}), which is no row's fault.",
        hint="look at what that line needs: a file that workers lack, or a name that is not there.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether there was no memory for a batch."""
    return isinstance(error, MemoryError) or any(
        f"{kind.__module__}.{kind.__qualname__}" in OUT_OF_MEMORY for kind in type(error).__mro__
    )


def row_error(error: Exception, stage: str) -> RowError:
    """Return why a row has no result; of an exception that is not ours only the class's name."""
    if isinstance(error, RowError):
        return error
    if isinstance(error, LakemillError):
        return RowError(error.code, error.message, hint=error.hint)
    kind = kind_of(error)
    return RowError("MODEL_FAILED" if stage == "predict" else "STEP_FAILED", f"the step raised {kind} for this row.")


def worker_failure(error: Exception) -> LakemillError:
    """Return the error that a worker reports; one that is not ours loses its text, which can hold rows."""
    if isinstance(error, LakemillError):
        return error
    if isinstance(error, ImportError):
        return environment_error(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"in {last.name} ({Path(last.filename).name}, line {last.lineno})"
    return RunError(
        "WORKER_FAILED", f"{kind_of(error)} {place}.", hint="its text can hold row data, so it is left out."
    )


def environment_error(error: BaseException) -> LakemillError:
    """Return the error of one of ``ENVIRONMENT``: its class, and a missing module's name if the code wrote it."""
    if isinstance(error, ModuleNotFoundError) and error.name and _is_in_code(error.name, error.__traceback__):
        return SetupError(
            "WORKER_MODULE_MISSING",
            f"a step needs the module '{error.name}', which this Python does not have.",
            hint="install it in the executors' Python, or ship it with --archives.",
        )
    return RunError(
        "STEP_ENVIRONMENT",
        f"a step raised {type(error).__name__}, which is no row's fault.",
        hint="look at what the step reaches: a service, a file or a module; the batch is repeated by the next run.",
    )


def _is_in_code(name: str, trace: TracebackType | None) -> bool:
    """Return whether one of the functions that failed names a module itself: a row's text may name one too."""
    while trace is not None:
        if any(written.partition(".")[0] == name.partition(".")[0] for written in trace.tb_frame.f_code.co_names):
            return True
        trace = trace.tb_next
    return False
