"""What a failure of a step is: told by the exception's class alone, for its text may be a row's."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any

from lakemill_udfs.errors import LakemillError, RowError, RunError, SetupError

ENVIRONMENT = (ImportError, ConnectionError, TimeoutError, PermissionError)
"""Failures that are no row's fault: the task fails and Spark repeats it."""

OUT_OF_MEMORY = (
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError",
)
"""Classes of the runtimes that say what ``MemoryError`` says; numpy's, pyarrow's and CuPy's are ``MemoryError`` s."""


class ForeignError(Exception):
    """Stands for an error of Lakemill that a user's code raised: its code and text are not ours.

    Args:
        kind: The class's name.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)


def foreign(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a user's function so that it never speaks with Lakemill's voice."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except LakemillError as error:
            raise ForeignError(type(error).__name__) from None

    return called


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
    kind = error.kind if isinstance(error, ForeignError) else type(error).__name__
    return RowError("MODEL_FAILED" if stage == "predict" else "STEP_FAILED", f"the step raised {kind} for this row.")


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
