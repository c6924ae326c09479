"""Functions that Python steps of these tests name."""

from __future__ import annotations

import importlib
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from lakemill_udfs.errors import RunError


def double(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"] * 2}


def zeros(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"z": np.zeros_like(inputs["x"])}


def same_text(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"]}


def double_frame(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"y": frame["x"] * 2})


def double_table(table: pa.Table) -> pa.Table:
    return pa.table(
        {"y": [[2 * value for value in row] if isinstance(row, list) else 2 * row for row in table["x"].to_pylist()]}
    )


def same_table(table: pa.Table) -> pa.Table:
    return table


def same_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def refuse_negative(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if (inputs["x"] < 0).any():
        raise ValueError(f"negative: {inputs['x']}")
    return {"y": inputs["x"]}


def drop_negative(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["x"] >= 0].rename(columns={"x": "y"})


def wide(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": np.stack([inputs["x"], inputs["x"]], axis=1)}


def at_most_two(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if len(inputs["x"]) > 2:
        raise MemoryError
    return {"y": inputs["x"]}


def never_enough(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise MemoryError


def length_of_first(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": np.zeros((len(inputs["x"]), int(inputs["x"][0])), "float32")}


def number(inputs: dict[str, np.ndarray]) -> float:
    return 1.0


def calls(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = len(next(iter(inputs.values())))
    x = inputs.get("x", np.full((rows, 1, 1), -1))
    return {"rows": np.full(rows, rows), "y": x.astype("float32")}


def shapes(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"rank": np.full(len(inputs["x"]), inputs["x"].ndim - 1)}


def address(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = inputs["x"]
    return {"address": np.full(len(x), x.__array_interface__["data"][0]), "same": x}


def sleep(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    time.sleep(float(inputs["x"][0]))  # a negative time raises
    return {"y": inputs["x"]}


def is_large() -> pl.Expr:
    return pl.col("out").struct.field("y") > 3


def across_rows() -> pl.Expr:
    return pl.col("out").struct.field("y") > pl.col("out").struct.field("y").mean()


def no_expression() -> bool:
    return True


def first(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"][:, 0]}


def says_out_of_memory(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if (inputs["x"] < 0).any():
        raise ValueError("cannot parse: out of memory, std::bad_alloc")
    return {"y": inputs["x"]}


def speaks_as_lakemill(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if (inputs["x"] < 0).any():
        raise RunError("OUT_OF_MEMORY", "the row's text: secret")
    return {"y": inputs["x"]}


def service_is_away(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise ConnectionError("no answer for the row's text: secret")


def imports_what_a_row_says(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    importlib.import_module("secret" + "_of_the_row")
    return {"y": inputs["x"]}


def imports_missing(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import module_that_is_missing  # type: ignore[import-not-found]  # noqa: F401 -- that is the test

    return {"y": inputs["x"]}


def integers_unless_negative(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"] if (inputs["x"] < 0).any() else inputs["x"].astype("int64")}


def wider_if_negative(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = inputs["x"]
    return {"y": np.stack([x] * (3 if (x < 0).any() else 2), axis=1)}


def nothing_if_negative(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    return None if (inputs["x"] < 0).any() else {"y": inputs["x"]}


def add_in_place(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = inputs["x"]
    x += 100
    return {"y": x}


BUFFER = np.zeros(64, "float32")


def reuse_one_buffer(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = len(inputs["x"])
    BUFFER[:rows] = inputs["x"]
    return {"y": BUFFER[:rows]}


def three_values(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": np.ones(3, "float32")}


def total(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"].sum(keepdims=True)}


def masked_if_negative(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": np.ma.masked_less(inputs["x"], 0)}


def surrogate_if_negative(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": np.array(["\ud800" if value < 0 else "a" for value in inputs["x"]], dtype=object)}


def identity(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"]}


def sorted_frame(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"x": "y"}).sort_values("y", ascending=False)


def largest(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"largest": np.maximum(inputs["one_logits"], inputs["two_logits"]).max(axis=1)}
