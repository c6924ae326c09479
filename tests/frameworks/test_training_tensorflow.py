"""TensorFlow is fed with the table's rows, and Keras takes the dataset as it is."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
import tensorflow as tf

from lakemill import ImageStep, LakemillError
from lakemill.training import make_spark_converter
from tests.unit.training.training_tables import write_examples

STEP = ImageStep(column="content", mode="L", size=(8, 8), layout="NHWC", output="pixels")


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_examples(tmp_path / "examples")


def test_elements_are_named_tuples_of_the_arrays(table: str) -> None:
    converter = make_spark_converter(table, images=STEP)
    arguments = {"schema_fields": ["number", "score", "label", "volume", "pixels"], "seed": 2}
    with make_spark_converter(table).make_tf_dataset(schema_fields=["content"]) as dataset:
        assert next(iter(dataset)).content.numpy()[0].startswith(b"\x89PNG")  # TensorFlow may decode it itself
    with converter.make_tf_dataset(16, **arguments) as dataset, converter.make_loader(16, **arguments) as arrays:
        assert dataset.cardinality() == 7
        for element, expected in zip(dataset, arrays, strict=True):
            assert list(element._fields) == arguments["schema_fields"]
            assert [text.decode() for text in element.label.numpy()] == expected["label"].tolist()
            for name in ("number", "score", "volume", "pixels"):
                assert (getattr(element, name).numpy() == expected[name]).all()


def test_batches_that_are_kept_stay_as_they_were(table: str) -> None:
    converter = make_spark_converter(table, images=STEP)
    arguments = {"schema_fields": ["pixels", "volume"], "num_epochs": 3}
    with converter.make_tf_dataset(8, **arguments) as dataset:
        kept = list(dataset)
    with converter.make_loader(8, **arguments) as arrays:
        for element, expected in zip(kept, arrays, strict=True):
            assert (element.pixels.numpy() == expected["pixels"]).all()
            assert (element.volume.numpy() == expected["volume"]).all()


def test_shapes_are_known_before_a_row_is_read(table: str) -> None:
    with make_spark_converter(table, images=STEP).make_tf_dataset(schema_fields=["pixels", "label"]) as dataset:
        assert dataset.element_spec.pixels == tf.TensorSpec((None, 8, 8, 1), tf.float32)
        assert dataset.element_spec.label == tf.TensorSpec((None,), tf.string)


def test_a_dataset_goes_on_with_the_next_epoch_each_time(table: str) -> None:
    with make_spark_converter(table).make_tf_dataset(
        10, schema_fields=["number"], shuffling_queue_capacity=100
    ) as dataset:
        first, second = ([number for e in dataset for number in e.number.numpy().tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second


def test_keras_fits_it_by_epochs_and_by_steps(table: str) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.02), loss="mse")
    converter = make_spark_converter(table, images=STEP, where="number < 12")
    with converter.make_tf_dataset(4, schema_fields=["pixels", "score"]) as dataset:
        history = model.fit(dataset.map(lambda row: (row.pixels, row.score)), epochs=30, verbose=0)
    assert history.history["loss"][-1] < 0.2 * history.history["loss"][0]
    with converter.make_tf_dataset(4, num_epochs=None, schema_fields=["pixels", "score"]) as dataset:
        steps = model.fit(dataset.map(lambda row: (row.pixels, row.score)), steps_per_epoch=5, epochs=3, verbose=0)
    assert len(steps.history["loss"]) == 3


def test_an_error_of_a_row_reaches_the_training(table: str) -> None:
    step = ImageStep(column="content", crop=(64, 64), output="pixels")
    with (
        make_spark_converter(table, images=step).make_tf_dataset(schema_fields=["pixels"]) as dataset,
        pytest.raises(tf.errors.OpError, match="IMAGE_TOO_SMALL"),
    ):
        list(dataset)


def test_what_a_dataset_cannot_be_is_said(table: str) -> None:
    converter = make_spark_converter(table)
    with (
        pytest.raises(LakemillError, match="TRAINING_ARGUMENT"),
        converter.make_tf_dataset(schema_fields=["point"], ragged="list"),
    ):
        pass
