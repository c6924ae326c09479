"""From a Delta table to batches for training: without a copy, each row exactly once an epoch.

Neither PyTorch nor TensorFlow nor Spark is imported before it is used.
"""

from lakemill.training.converter import SparkDatasetConverter, make_spark_converter
from lakemill.training.transform_spec import TransformSpec

__all__ = ["SparkDatasetConverter", "TransformSpec", "make_spark_converter"]
