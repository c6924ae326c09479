"""Functions that Python steps of these tests name."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa


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
    raise RuntimeError("CUDA out of memory")


def needs_module(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise ModuleNotFoundError("No module named 'scipy'")


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
