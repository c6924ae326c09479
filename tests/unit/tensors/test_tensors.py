"""A tensor is declared once; every schema follows from it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.tensors.spec import FREE, TensorSpec, arrow_tensors, spec_from_metadata, tensor_of


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (TensorSpec("x", "uint8"), pa.int16()),
        (TensorSpec("x", "uint64"), pa.decimal128(20, 0)),
        (TensorSpec("x", "float16"), pa.float32()),
        (TensorSpec("x", "float32", (3,)), pa.list_(pa.float32())),
        (TensorSpec("x", "float32", (0,)), pa.list_(pa.float32())),
        (TensorSpec("x", "float32", (2, 2)), pa.binary()),
        (TensorSpec("x", "float32", (None,)), FREE),
        (TensorSpec("x", "string", (None, 2)), pa.list_(pa.list_(pa.string()))),
    ],
    ids=str,
)
def test_each_rank_has_its_form_in_delta(spec: TensorSpec, kind: pa.DataType) -> None:
    assert spec.arrow_type() == kind
    assert spec_from_metadata("x", spec.metadata()) == spec


def test_sizes_are_compared_with_none_so_that_zero_is_a_size() -> None:
    assert not TensorSpec("x", shape=(0,)).accepts((5,))
    assert TensorSpec("x", shape=(None,)).accepts((5,))
    assert TensorSpec("x", shape=(0, 3)).row_bytes == 0
    assert TensorSpec("x", shape=(None, 3)).row_bytes is None


def test_a_column_without_metadata_says_what_its_type_says() -> None:
    schema = pa.schema(
        [
            pa.field("fixed", pa.list_(pa.list_(pa.int8(), 3), 2)),
            pa.field("free", pa.list_(pa.float64())),
            pa.field("tensor", pa.fixed_shape_tensor(pa.float32(), [2, 3])),
            pa.field("turned", pa.fixed_shape_tensor(pa.float32(), [3, 4], permutation=[1, 0])),
            pa.field("plain", pa.binary()),
            pa.field("tagged", pa.binary(), metadata=TensorSpec("tagged", "uint8", (2, 2)).metadata()),
        ]
    )
    assert arrow_tensors(schema) == {
        "fixed": TensorSpec("fixed", "int8", (2, 3)),
        "free": TensorSpec("free", "float64", (None,)),
        "tensor": TensorSpec("tensor", "float32", (2, 3)),
        "turned": TensorSpec("turned", "float32", (4, 3)),
        "plain": "binary",
        "tagged": TensorSpec("tagged", "uint8", (2, 2)),
    }
    assert tensor_of("when", pa.timestamp("us")) == "timestamp[us]"


def test_what_cannot_be_a_tensor_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ConfigError, match=r"^\[TENSOR_DTYPE\] tensor 'x': dtype 'complex64' is not one of bool, int8"):
        TensorSpec("x", "complex64")
    with pytest.raises(ConfigError, match=r"^\[TENSOR_SHAPE\] tensor 'x': shape \[-1, 3\] has a negative dimension"):
        TensorSpec("x", shape=(-1, 3))
