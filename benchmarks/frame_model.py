"""A model that costs nothing, so that what is measured is Lakemill: its outputs are made once."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 2052, 2456
MADE = {
    "virtual_stain": np.full((1, HEIGHT, WIDTH, 3), 7, np.uint8),
    "mask_overlay": np.full((1, HEIGHT, WIDTH, 3), 8, np.uint8),
    "mask": np.full((1, HEIGHT, WIDTH), 9, np.uint16),
}


def stain(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return four images of the frame's size; the first is the frame itself."""
    return {"image": inputs["image"], **MADE}


def first_value(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return one number a row."""
    pixels = inputs["pixels"]
    return {"y": pixels.reshape(len(pixels), -1)[:, 0].astype(np.float32)}
