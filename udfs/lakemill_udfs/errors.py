"""The errors of Lakemill; each has a stable code, a hint and the exit code of the command line.

* LakemillError            exit 1: the run failed
  + ConfigError            exit 2: the configuration or an argument is wrong
    - SetupError           exit 2: Java, Spark, Delta or Python are missing or do not go together
    - TableError           exit 2: a table or column is missing, or has another schema
    - ModelError           exit 2: a model is unknown, does not load, or does not fit its inputs
  + RunError               exit 1: storage, a worker or a commit failed
  + TooManyErrorsError     exit 3: more rows failed than ``quarantine.max_ratio`` allows
  + RowError               exit 1: why one row has no result; on Spark the row's ``error``

A message names what, where, expected and got, and never holds row data; what it says of URIs is masked, and control
characters are escapes. ``str(error)`` begins with the code, because an error of an executor reaches the driver as text
only.
"""

from __future__ import annotations

import re
from typing import ClassVar

from lakemill_udfs.masking import shown

CODE = re.compile(r"\[([A-Z][A-Z0-9_]+)\] (.*?)(?: Hint: (.*))?$", re.MULTILINE)


class LakemillError(Exception):
    """Base of every error that Lakemill raises.

    Args:
        code: Stable, upper case with underscores, for example ``MODEL_INPUT_MISSING``.
        message: What, where, expected and got. Never row data.
        hint: How to mend it, as one sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        self.code, self.message, self.hint = code, shown(message), hint and shown(hint)
        super().__init__(f"[{code}] {self.message}" + (f" Hint: {self.hint}" if hint else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the arguments, so that the error survives the way between processes."""
        return _rebuild, (type(self), self.code, self.message, self.hint)


def _rebuild(kind: type[LakemillError], code: str, message: str, hint: str | None) -> LakemillError:
    return kind(code, message, hint=hint)


class ConfigError(LakemillError):
    """The configuration or an argument is wrong."""

    exit_code = 2


class SetupError(ConfigError):
    """Java, Spark, Delta or Python are missing or do not go together."""


class TableError(ConfigError):
    """A table or column is missing, is not writable, or has another schema."""


class ModelError(ConfigError):
    """A model is unknown, does not load, or does not fit its inputs or outputs."""


class RunError(LakemillError):
    """Storage, a worker or a commit failed while the job ran."""


class TooManyErrorsError(LakemillError):
    """More rows failed than ``quarantine.max_ratio`` allows; the batch was not committed."""

    exit_code = 3


class RowError(LakemillError):
    """Why one row has no result: raised by ``infer``, the row's ``error`` struct on Spark."""


def missing_extra(module: str, extra: str) -> ModelError:
    """Return the error that says which extra brings ``module``.

    Args:
        module: The module that could not be imported, for example ``onnxruntime``.
        extra: The extra of the distribution that installs it, for example ``onnx``.
    """
    return ModelError(
        "EXTRA_MISSING",
        f"the module '{module}' is not installed here.",
        hint=f"pip install 'lakemill[{extra}]'; on a cluster, install it on the executors too.",
    )
