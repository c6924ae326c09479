"""From a Delta table to batches for training: without a copy, each row exactly once an epoch.

Neither PyTorch nor TensorFlow nor Spark is imported before it is used.
"""

from lakemill.training.converter import SparkDatasetConverter, make_spark_converter
from lakemill.training.distributed import distribute
from lakemill.training.tracking import log_training_data, promote, training_data_of
from lakemill.training.transform_spec import TransformSpec

__all__ = [
    "SparkDatasetConverter",
    "TransformSpec",
    "distribute",
    "log_training_data",
    "make_spark_converter",
    "promote",
    "training_data_of",
]
