"""One step's calls: a batch that raises, or whose result is not as declared, is halved until the bad rows are alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakemill_udfs.errors import LakemillError, ModelError, RowError, RunError
from lakemill_udfs.failures import ENVIRONMENT, environment_error, fault_of, is_out_of_memory, row_error, same_fault
from lakemill_udfs.models.model import Arrays
from lakemill_udfs.tensors.casts import cast_numpy
from lakemill_udfs.tensors.ragged import alike, is_ragged, join
from lakemill_udfs.tensors.spec import TensorSpec
from lakemill_udfs.wiring import StepWiring

OBJECT_TYPES = {"string": str, "binary": bytes, "datetime": dt.datetime, "object": object}

AWAY_ROWS = 3
"""So many rows alone, one after another, that fail by the environment are no rows' fault; fewer are their own."""

Failures = dict[int, RowError]
"""Why rows have no result, by their place in the batch."""


class StepCall:
    """How one step of a plan is called, with what was learnt from its calls so far.

    Args:
        call: From inputs by name to outputs by name.
        wiring: Of the step.
        stage: Of its failures.
        max_rows: Rows of one call at most; halved when there is no memory.
        halves: Whether a call that fails is halved; without it all its rows fail.
        foreign: Whether the code is not ours: then it gets read-only arrays, and a task's first row goes alone.
        stop_at_first: Whether one row alone shows that the step does not keep its declaration, as in ``infer``.
    """

    def __init__(
        self,
        call: Callable[[Arrays], Arrays],
        wiring: StepWiring,
        stage: str,
        max_rows: int,
        *,
        halves: bool = True,
        foreign: bool = True,
        stop_at_first: bool = False,
    ) -> None:
        self.call, self.wiring, self.stage, self.max_rows = call, wiring, stage, max_rows
        self.halves, self.foreign, self.stop_at_first = halves, foreign, stop_at_first
        self._writes = False
        self._tried = not (foreign and halves)
        self._kept = self._broken = 0
        self._first_broken: ModelError | None = None
        self._faults: list[tuple[str, str, str] | None] = []
        self._rows = 0
        self._away = self._away_here = 0  # rows that failed alone by the environment: one after another, and of a batch

    def run(self, inputs: Arrays, ragged: Sequence[str], rows: int) -> tuple[Arrays, Failures]:
        """Call the step for a batch.

        Args:
            inputs: By the step's own names.
            ragged: Those that hold one array a row.
            rows: Rows of each.

        Returns:
            The outputs of the good rows, in order, and why the others failed.

        Raises:
            ModelError: no row so far, of two at least, gave what the step declares.
            RunError: ``OUT_OF_MEMORY`` for one row; ``STEP_ENVIRONMENT`` where all rows failed by one fault, or all or
                ``AWAY_ROWS`` one after another by the environment.
            SetupError: ``WORKER_MODULE_MISSING``.
        """
        parts: list[Arrays] = []
        places: list[NDArray[np.int64]] = []
        failed: Failures = {}
        self._rows, self._faults, self._away_here = rows, [], 0
        for members, group in alike(inputs, ragged, rows):
            start = 0
            while start < len(members):
                size = min(self.max_rows, len(members) - start) if self.halves else len(members)
                here, part = members, group
                if size < len(members):
                    here = members[start : start + size]
                    part = {name: array[start : start + size] for name, array in group.items()}
                attempt = self._attempt if self._tried or size == 1 else self._first_attempt
                results, errors = attempt(part, size)
                parts += results
                places.append(np.delete(here, list(errors)) if errors else here)
                failed.update({int(here[at]): error for at, error in errors.items()})
                start += size
        self._judge(rows - len(failed))
        fault = same_fault(self._faults, rows) if self.halves else None
        if fault is not None:
            raise fault
        order = np.argsort(np.concatenate(places)) if len(places) > 1 and ragged else None
        joined = {spec.name: join([part[spec.name] for part in parts], spec) for spec, _ in self.wiring.outputs}
        return {name: array if order is None else array[order] for name, array in joined.items()}, failed

    def _judge(self, good: int) -> None:
        """Stop where not one row has given what was declared; one row alone decides nothing for the others."""
        self._kept += good
        enough = 1 if self.stop_at_first else 2
        if self.halves and not self._kept and self._broken >= enough and self._first_broken is not None:
            raise self._first_broken

    def _attempt(self, inputs: Arrays, rows: int) -> tuple[list[Arrays], Failures]:
        """Call once; on failure halve. Returns the results in order and the failures by place.

        Raises:
            ModelError: ``OUTPUT_ROWS`` if the number of values is wrong for these rows and right for each alone: such
                a model reduces over its rows, and what it gives depends on the batch.
        """
        reduces: RowError | None = None
        try:
            result = self._result(inputs, rows)
        except ImportError as error:
            raise environment_error(error) from None
        except Exception as error:  # a user's model may raise anything; the rows it raises for get it as their error
            if isinstance(error, ENVIRONMENT) and self._is_away(rows):
                raise environment_error(error) from None
            if is_out_of_memory(error):
                if rows == 1:
                    raise RunError(
                        "OUT_OF_MEMORY",
                        "there is no memory for a batch of one row.",
                        hint="use fewer tasks a machine, or a smaller model.",
                    ) from None
                self.max_rows = max(1, rows // 2)
            elif isinstance(error, LakemillError) and not isinstance(error, RowError | ModelError):
                raise
            else:
                if isinstance(error, ModelError):
                    self._first_broken = self._first_broken or error
                if isinstance(error, RowError) and error.code == "OUTPUT_ROWS":
                    reduces = error
                if rows == 1 or not self.halves:
                    self._faults.append(fault_of(error))
                    self._broken += rows if isinstance(error, ModelError) else 0
                    return [], dict.fromkeys(range(rows), row_error(error, self.stage))
        else:
            self._away = 0
            return [result], {}
        half = rows // 2
        left, left_failed = self._attempt({name: array[:half] for name, array in inputs.items()}, half)
        right, right_failed = self._attempt({name: array[half:] for name, array in inputs.items()}, rows - half)
        if reduces is not None and not left_failed and not right_failed:
            raise _not_by_row(reduces.message)
        return left + right, left_failed | {half + at: error for at, error in right_failed.items()}

    def _is_away(self, rows: int) -> bool:
        """Return whether a failure is the environment's, and not the doing of a row, whose text may name a host."""
        if not self.halves or self.stop_at_first:
            return True
        self._away += rows == 1
        self._away_here += rows == 1
        return self._away >= AWAY_ROWS or 2 <= self._rows == self._away_here

    def _result(self, inputs: Arrays, rows: int) -> Arrays:
        """Return one call's outputs, checked; as copies where other calls of this batch may use the same array."""
        for name in self.wiring.casts.keys() & inputs.keys():
            inputs = inputs | {name: _cast(inputs[name], name, self.wiring.casts[name])}
        result = self._called(inputs)
        outputs = {spec.name: checked(result, spec, rows) for spec, _ in self.wiring.outputs}
        if self.foreign and rows < self._rows:
            outputs = {name: array.copy() for name, array in outputs.items()}
        return outputs

    def _called(self, inputs: Arrays) -> Arrays:
        """Call with arrays that cannot be written to, or with copies where the code writes to them.

        A function that changed its input would change the caller's array, the recorded ``in`` and what the next step
        reads. Which error a write raises depends on the library, so the call is repeated with copies to find out.
        """
        if not self.foreign:
            return self.call(inputs)
        if not self._writes:
            try:
                return self.call({name: _read_only(array) for name, array in inputs.items()})
            except (ValueError, TypeError, BufferError):
                pass
        result = self.call({name: array.copy() for name, array in inputs.items()})
        self._writes = True
        return result

    def _first_attempt(self, inputs: Arrays, rows: int) -> tuple[list[Arrays], Failures]:
        """Call for the first row alone, then for the others, so that each is scored once.

        So outputs are found that have as many values as the batch has rows by coincidence: for one row they have not.
        ``infer`` gives a result without copying it: there all rows go in one call, and the first one once more.

        Raises:
            ModelError: ``OUTPUT_ROWS`` if the step gives as many values for one row as for all.
        """
        if self.stop_at_first:
            results, failed = self._attempt(inputs, rows)
            return results if failed else self._try_first_row(inputs, results), failed
        first, wrong = self._first_row(inputs)
        if first is not None:
            self._tried = True
            others, failed = self._attempt({name: array[1:] for name, array in inputs.items()}, rows - 1)
            return [first, *others], {1 + at: error for at, error in failed.items()}
        results, failed = self._attempt(inputs, rows)
        if wrong is not None and not failed:
            raise wrong
        self._tried = not failed
        return results, failed

    def _first_row(self, inputs: Arrays) -> tuple[Arrays | None, ModelError | None]:
        """Return the outputs for the first row alone, if there are any, and what is wrong with their number of rows."""
        try:
            return self._result({name: array[:1] for name, array in inputs.items()}, 1), None
        except RowError as error:
            if error.code != "OUTPUT_ROWS":
                return None, None
            return None, _not_by_row(error.message.replace("1 rows went in", "one row went in"))
        except Exception:  # a model may want two rows at least, or no such row alone; then nothing is learnt
            return None, None

    def _try_first_row(self, inputs: Arrays, results: list[Arrays]) -> list[Arrays]:
        """Return the results; as they were, if the step uses one array for all that it gives."""
        self._tried = True
        kept = [{name: array.copy() for name, array in part.items()} for part in results]
        _, wrong = self._first_row(inputs)
        if wrong is not None:
            raise wrong
        same = (
            array.dtype == object or np.array_equal(part[name], array)
            for part, was in zip(results, kept, strict=True)
            for name, array in was.items()
        )
        return results if all(same) else kept


def _not_by_row(text: str) -> ModelError:
    return ModelError(
        "OUTPUT_ROWS",
        f"{text.removesuffix('.')}; the first axis of an output is the row.",
        hint="turn or repeat it in the model or the function.",
    )


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _cast(array: NDArray[Any], name: str, dtype: str) -> NDArray[Any]:
    """Return an earlier step's result as the next step's dtype; a value that does not fit fails its row."""
    spec = TensorSpec(name, dtype)
    try:
        return cast_numpy(array, spec)
    except pa.ArrowInvalid:
        raise RowError("INPUT_CAST", f"{name}: expected {dtype}, got {array.dtype} values that do not fit.") from None


def checked(result: Arrays, spec: TensorSpec, rows: int) -> NDArray[Any]:
    """Return one output of a step if it is what was declared.

    Raises:
        RowError: ``OUTPUT_ROWS`` if it has another number of rows than went in, ``OUTPUT_MASKED`` or ``OUTPUT_TEXT`` if
            a value is none; the batch is halved to find which.
        ModelError: ``OUTPUT_MISSING``, ``OUTPUT_SHAPE`` or ``OUTPUT_DTYPE``: the step's fault if it is so for all rows.
    """
    if spec.name not in result:
        raise ModelError("OUTPUT_MISSING", f"the step's result has no '{spec.name}'; it has: {', '.join(result)}.")
    if np.ma.is_masked(result[spec.name]):
        raise RowError("OUTPUT_MASKED", f"{spec.name}: the result is masked.")
    array = np.asarray(result[spec.name])
    if not array.ndim or len(array) != rows:
        raise RowError(
            "OUTPUT_ROWS", f"{spec.name}: {rows} rows went in, {len(array) if array.ndim else 'one value'} came out."
        )
    if is_ragged(array, spec):
        for cell in map(np.asarray, (cell for cell in array if cell is not None)):  # None: the answer is null
            if not cell.ndim and cell.dtype == object:  # no number, as a Decimal
                raise _wrong_dtype(cell, spec)
            checked({spec.name: cell[np.newaxis]}, spec, 1)
        return array
    if not spec.accepts(array.shape[1:]):
        expected = ", ".join("?" if size is None else str(size) for size in (rows, *spec.shape))
        raise ModelError(
            "OUTPUT_SHAPE",
            f"{spec.name}: expected ({expected}), got ({', '.join(map(str, array.shape))}).",
            hint="correct the declared outputs, or the model.",
        )
    if spec.dtype in OBJECT_TYPES:
        return _objects(array, spec)
    if array.dtype != spec.numpy_dtype:
        raise _wrong_dtype(array, spec)
    return array


def _objects(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Return text or bytes; text that is no Unicode, as a lone surrogate, is in no table."""
    kind = OBJECT_TYPES[spec.dtype]
    if array.dtype.kind != "O" and not (array.dtype.kind == "U" and kind is str):
        raise _wrong_dtype(array, spec)
    values = [value for value in array.flat if value is not None]
    if not all(isinstance(value, kind) for value in values):
        raise _wrong_dtype(array, spec)
    if kind is str:
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            raise RowError("OUTPUT_TEXT", f"{spec.name}: the text is no valid Unicode (a lone surrogate).") from None
    return array


def _wrong_dtype(array: NDArray[Any], spec: TensorSpec) -> ModelError:
    got = (
        array.dtype
        if array.dtype != object
        else next((type(one).__name__ for one in array.flat if one is not None), "")
    )
    return ModelError(
        "OUTPUT_DTYPE",
        f"{spec.name}: expected {spec.dtype}, got {got or 'null'}.",
        hint="correct the declared outputs, or the model.",
    )
