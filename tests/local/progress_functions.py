"""The function of the jobs of the property tests; workers import it."""

from __future__ import annotations

import numpy as np


def twice(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Double the numbers; it does not take those that end with 3."""
    if (columns["x"] % 10 == 3).any():
        raise ValueError("no threes")
    return {"y": columns["x"] * 2.0}
