"""Batches as PyTorch's tensors."""

from __future__ import annotations

from typing import Any

from lakemill.training.fields import Arrays
from lakemill_udfs.errors import missing_extra


def torch_batch(arrays: Arrays) -> dict[str, Any]:
    """Return tensors that share the arrays' memory where they may be written to; strings and ragged rows as lists.

    Raises:
        ModelError: ``EXTRA_MISSING`` without PyTorch.
    """
    torch = import_torch()

    def tensor(array: Any) -> Any:
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    return {
        name: tensor(array)
        if array.dtype != object
        else [tensor(cell) if hasattr(cell, "flags") else cell for cell in array]
        for name, array in arrays.items()
    }


def import_torch() -> Any:
    """Return the module ``torch``.

    Raises:
        ModelError: ``EXTRA_MISSING`` without it.
    """
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "torch") from error
    return torch
