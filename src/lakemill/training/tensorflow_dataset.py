"""Batches as a ``tf.data.Dataset`` of named tuples."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from lakemill.training.loader import Loader
from lakemill_udfs.errors import ConfigError, missing_extra
from lakemill_udfs.images.step import ALIGNED_BYTES


@contextmanager
def tensorflow_dataset(loader: Loader, prefetch: int | None) -> Iterator[Any]:
    """Give a dataset while the block lasts; each iteration over it goes on with the loader's next epochs.

    Args:
        loader: Of arrays.
        prefetch: Batches that TensorFlow keeps ready; None lets it choose, 0 keeps none.

    Raises:
        ModelError: ``EXTRA_MISSING`` without TensorFlow.
        ConfigError: ``TRAINING_FIELD`` if a column's name is no field of a named tuple, ``TRAINING_ARGUMENT`` for
            ``ragged="list"``.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise missing_extra("tensorflow", "tensorflow") from error
    fields = loader.reading.fields
    if fields.ragged == "list":
        raise ConfigError("TRAINING_ARGUMENT", "a tf.data.Dataset takes no lists of arrays.", hint="ragged='pad'")
    names = list(fields.specs)
    batch = _tuple_of(names)
    specs = {
        name: tf.TensorSpec((None, *spec.shape), tf.string if spec.dtype in ("string", "binary") else spec.dtype)
        for name, spec in fields.specs.items()
    }
    waiting: dict[int, Any] = {}  # arrays of a generator would be copied, twice; what a py_function returns is not

    def numbers() -> Iterator[int]:
        for arrays in loader:
            number = next(counted)
            waiting[number] = arrays
            yield number

    def tensors(number: Any) -> list[Any]:
        arrays = waiting.pop(int(number))
        return [_tensor(tf, arrays[name], specs[name].dtype) for name in names]

    def tuples(number: Any) -> Any:
        made = tf.py_function(tensors, [number], [specs[name].dtype for name in names])
        return batch(*(tf.ensure_shape(one, specs[name].shape) for name, one in zip(names, made, strict=True)))

    counted = count()
    dataset = tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec((), tf.int64)).map(tuples)
    epochs = loader.reading.epochs
    batches = tf.data.INFINITE_CARDINALITY if epochs is None else epochs * len(loader)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    if prefetch != 0:
        dataset = dataset.prefetch(tf.data.AUTOTUNE if prefetch is None else prefetch)
    with loader:
        yield dataset


def _tensor(tf: Any, array: Any, dtype: Any) -> Any:
    """Return a tensor, which shares the memory of an array that is its own and aligned as TensorFlow wants it."""
    if array.dtype.kind in "fiu" and array.flags.writeable and array.ctypes.data % ALIGNED_BYTES == 0:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.convert_to_tensor(array, dtype)


def _tuple_of(names: list[str]) -> Any:
    try:
        return namedtuple("Batch", names)
    except ValueError as error:
        raise ConfigError(
            "TRAINING_FIELD",
            f"the columns {', '.join(names)} cannot be the fields of a named tuple.",
            hint="choose others with schema_fields, or rename them with a TransformSpec.",
        ) from error
