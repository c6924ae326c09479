"""Batches as a ``tf.data.Dataset`` of named tuples."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lakemill.training.loader import Loader
from lakemill_udfs.errors import ConfigError, missing_extra


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
    batch = _tuple_of(list(fields.specs))

    def tuples() -> Iterator[Any]:
        for arrays in loader:
            yield batch(**arrays)

    specs = {
        name: tf.TensorSpec((None, *spec.shape), tf.string if spec.dtype in ("string", "binary") else spec.dtype)
        for name, spec in fields.specs.items()
    }
    dataset = tf.data.Dataset.from_generator(tuples, output_signature=batch(**specs))
    epochs = loader.reading.epochs
    count = tf.data.INFINITE_CARDINALITY if epochs is None else epochs * len(loader)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    if prefetch != 0:
        dataset = dataset.prefetch(tf.data.AUTOTUNE if prefetch is None else prefetch)
    with loader:
        yield dataset


def _tuple_of(names: list[str]) -> Any:
    try:
        return namedtuple("Batch", names)
    except ValueError as error:
        raise ConfigError(
            "TRAINING_FIELD",
            f"the columns {', '.join(names)} cannot be the fields of a named tuple.",
            hint="choose others with schema_fields, or rename them with a TransformSpec.",
        ) from error
