"""A table of grey images, and functions that transform it."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from PIL import Image

FUNCTIONS = """
import io
import pandas as pd
from PIL import Image, ImageOps

def invert(image):
    return ImageOps.invert(image)

def brightest(frame):
    means = [sum(Image.open(io.BytesIO(content)).convert("L").histogram()[128:]) for content in frame["content"]]
    return pd.DataFrame({"label": frame["label"].iloc[:1], "images": [len(frame)], "bright": [max(means)]})

def fail(frame):
    raise ValueError("secret")
"""


def grey(value: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """Return one shade of grey as a PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def grey_images(folder: Path) -> str:
    """Write a table of six images in two labels, of which one does not decode, beside the functions; return it."""
    (folder / "my_functions.py").write_text(FUNCTIONS)
    contents = [bytearray(grey(number * 40)) for number in range(6)]
    contents[5][43:53] = bytes(10)
    table = pa.table(
        {
            "path": [f"/photos/{number}.png" for number in range(6)],
            "label": ["ab"[number % 2] for number in range(6)],
            "width": pa.array([40] * 6, pa.int32()),
            "height": pa.array([30] * 6, pa.int32()),
            "content": [bytes(content) for content in contents],
        }
    )
    write_deltalake(folder / "lake/images", table)
    return str(folder / "lake/images")
