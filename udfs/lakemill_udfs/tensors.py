"""``TensorSpec``: one declaration of a tensor, from which Arrow, numpy, Spark and MLflow schemas are rendered.

The representation in Delta is fixed by the design, section 4: rank 0 is the Spark scalar, rank 1 (and strings of
any rank) an array of it, rank 2 and more is BINARY in C order and little-endian, a free dimension is
``struct<data binary, shape array<int>>``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float16", "float32", "float64", "string")
"""The dtypes a tensor may have, in numpy's names, and ``string``."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, dtype and shape without the batch dimension.

    Args:
        name: The tensor's name.
        dtype: One of ``DTYPES``.
        shape: Dimensions of one row's tensor; ``None`` is a free dimension, ``()`` a scalar.
        nullable: Whether a row may have no value.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 -- read by pydantic on the driver, which never comes here

    name: str
    dtype: str = "float32"
    shape: tuple[int | None, ...] = field(default=())
    nullable: bool = False
