"""What one process hands another is the same on both sides: values, dtypes, shapes and nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakemill_udfs.models.frames import LendingFile, LentFrame, read_frame, write_frame
from lakemill_udfs.tensors.ragged import from_rows

IMAGES = np.arange(2 * 3 * 4 * 3, dtype="uint8").reshape(2, 3, 4, 3)
CASES = {
    "images": IMAGES,
    "strided": IMAGES[:, ::2, :, 1],
    "big-endian": np.arange(4, dtype=">f8"),
    "half": np.ones((2, 3), "float16"),
    "times": np.array(["2020-01-01", "2021-02-03"], "datetime64[us]"),
    "no rows": np.empty((0, 3), "float32"),
    "texts": np.array([["a", "é"], ["", None]], dtype=object),
    "bytes": from_rows([b"\x00", None]),
    "ragged": from_rows([np.ones((2, 3), "float32"), None, np.zeros((0, 3), "float32")]),
    "lists": from_rows([np.array(["a", "b"], object), np.array([], object)]),
    "dicts": from_rows([{"a": 1, "b": [1.5]}, {"a": None, "b": []}]),
}


@pytest.mark.parametrize("name", CASES)
def test_it_comes_out_as_it_went_in(name: str, tmp_path: Path) -> None:
    array: Any = CASES[name]
    write_frame(tmp_path / "frame", {"x": array})
    back = read_frame(tmp_path / "frame")["x"]
    assert not (tmp_path / "frame").exists(), "it is read once"
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    for got, expected in zip(back.ravel(), array.ravel(), strict=True):
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
        else:
            assert got == expected


def test_its_memory_stays_while_the_arrays_do(tmp_path: Path) -> None:
    write_frame(tmp_path / "a", {"x": np.arange(100_000)})
    first = read_frame(tmp_path / "a")["x"]
    write_frame(tmp_path / "a", {"x": np.zeros(100_000, "int64")})
    read_frame(tmp_path / "a")
    np.testing.assert_array_equal(first, np.arange(100_000))


def test_a_file_is_written_over_once_nobody_holds_its_arrays(tmp_path: Path) -> None:
    lending, files = LendingFile(tmp_path / "a"), set()
    for rows in (100_000, 10, 100_000):
        lending.write({"x": np.arange(rows)})
        lent = LentFrame(lending.path)
        assert lent.arrays()["x"].tolist() == list(range(rows))
        lent.give_back()
        files.add(lending.path.stat().st_ino)
    assert len(files) == 1
    lent = LentFrame(lending.path)
    kept = lent.arrays()["x"][5:]
    lent.give_back()
    lending.write({"x": np.zeros(100_000, "int64")})
    np.testing.assert_array_equal(kept, np.arange(5, 100_000))
    assert not LentFrame(lending.path).arrays()["x"].any()
