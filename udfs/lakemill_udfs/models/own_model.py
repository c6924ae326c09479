"""``OwnModel``: the base of a model class of your own, which loads anything and predicts on named arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from lakemill_udfs.models.model import Arrays, Specs


class OwnModel(ABC):
    """Derive one class from it, in a folder or zip with the files that it loads.

    ``inputs`` and ``outputs`` say what it takes and gives, as ``TensorSpec``s; a ``nullable`` input may be missing or
    null. ``expected_types`` are the types that ``load`` may return; empty for any.
    """

    inputs: ClassVar[Specs] = ()
    outputs: ClassVar[Specs] = ()
    expected_types: ClassVar[tuple[type, ...]] = ()
    model: Any = None
    """What ``load`` returned."""

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """Return the model.

        Args:
            folder: Holds the files beside the class.
        """

    @abstractmethod
    def predict(self, inputs: Arrays) -> Arrays:
        """Return the outputs ``(n, ...)`` of inputs ``(n, ...)``; rows of one call are alike in shape."""
