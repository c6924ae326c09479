"""Numbers to a tensor's dtype and shape: what may be converted, and what would change a value and fails its row."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakemill_udfs.errors import RowError
from lakemill_udfs.tensors.spec import TensorSpec


def cast_arrow(array: pa.Array, spec: TensorSpec) -> NDArray[Any]:
    """Return an Arrow array's values in the tensor's dtype; without a copy where they are so already.

    Raises:
        RowError: ``INPUT_NULL``, ``INPUT_TYPE``, ``INPUT_CAST``.
        pyarrow.ArrowInvalid: a value would change, as 1.5 to an integer. Floats may lose digits.
    """
    if array.null_count and not (spec.nullable and not spec.shape):
        raise RowError("INPUT_NULL", f"{spec.name}: a tensor holds a null.")
    if spec.dtype == "string":
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise RowError("INPUT_TYPE", f"{spec.name}: expected strings, got {array.type}.")
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=object)
    target = _arrow_dtype(spec.dtype)
    if array.type != target:
        if pa.types.is_boolean(target):  # Arrow's cast would call every number but 0 true
            array = pc.cast(array, pa.uint8())
            if len(array) and pc.max(array).as_py() > 1:
                raise RowError("INPUT_CAST", f"{spec.name}: expected 0 or 1 for a bool.")
        floats = pa.types.is_floating(target)
        infinite = _infinite(array) if floats else 0
        # losing digits of a float is what everyone expects; losing an integer is not
        array = pc.cast(array, pa.float32() if pa.types.is_float16(target) else target, safe=not floats)
        values = _narrowed(array.to_numpy(zero_copy_only=False), spec)
        if floats and np.count_nonzero(np.isinf(values)) > infinite:
            raise too_large(spec)
        return values
    return _narrowed(array.to_numpy(zero_copy_only=False), spec)


_arrow_dtype = lru_cache(pa.from_numpy_dtype)


def _infinite(array: pa.Array) -> int:
    return (pc.sum(pc.is_inf(array)).as_py() or 0) if pa.types.is_floating(array.type) else 0


def _narrowed(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what becomes infinite is looked for
        return values.astype(spec.numpy_dtype, copy=False)


def too_large(spec: TensorSpec) -> RowError:
    """Return the error of a finite number that would be infinite in the tensor's dtype."""
    return RowError("INPUT_CAST", f"{spec.name}: a number is too large for {spec.dtype}.")


def cast_numpy(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Return numbers in the tensor's dtype and their own shape; without a copy where they are so already.

    Raises:
        RowError: as ``cast_arrow``.
        pyarrow.ArrowInvalid: as ``cast_arrow``.
    """
    wanted = spec.numpy_dtype
    if not values.dtype.isnative:  # pyarrow takes no other byte order
        values = values.astype(values.dtype.newbyteorder("="))
    if np.can_cast(values.dtype, wanted):  # no need to look at the values
        return values.astype(wanted, copy=False)
    if wanted.kind == "f":
        narrow = _narrowed(values, spec)
        if np.count_nonzero(np.isinf(narrow)) > (np.count_nonzero(np.isinf(values)) if values.dtype.kind == "f" else 0):
            raise too_large(spec)
        return narrow
    return cast_arrow(pa.array(values.reshape(-1)), spec).reshape(values.shape)


def row_shape(spec: TensorSpec, got: tuple[int, ...]) -> tuple[int, ...]:
    """Return one row's shape from the sizes found; a vector's or scalar's values may fill a tensor, and the reverse.

    Raises:
        RowError: ``TENSOR_SHAPE`` if the values do not fit.
    """
    if spec.accepts(got):
        return got
    if 0 in got and len(got) < len(spec.shape) and replace(spec, shape=spec.shape[: len(got)]).accepts(got):
        return got + tuple(
            size or 0 for size in spec.shape[len(got) :]
        )  # an empty list does not say what it is a list of
    if len(got) <= 1 or len(spec.shape) <= 1:
        length = math.prod(got)
        known = math.prod(size for size in spec.shape if size is not None)
        free = spec.shape.count(None)
        if not free and known == length:
            return tuple(size or 0 for size in spec.shape)
        if free == 1 and known and length % known == 0:
            return tuple(length // known if size is None else size for size in spec.shape)
    raise wrong_shape(spec, got)


def wrong_shape(spec: TensorSpec, got: tuple[int, ...]) -> RowError:
    """Return the error of a row whose sizes do not fit."""
    wanted = ", ".join("?" if size is None else str(size) for size in spec.shape)
    return RowError("TENSOR_SHAPE", f"{spec.name}: expected ({wanted}), got ({', '.join(map(str, got))}).")


def of_shape(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """Return the spec of one row whose shape stands beside it.

    Raises:
        RowError: ``TENSOR_SHAPE`` if it does not fit.
    """
    if not spec.accepts(shape) or any(size < 0 for size in shape):
        raise wrong_shape(spec, shape)
    return replace(spec, shape=shape)
