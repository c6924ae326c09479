"""Rows of twenty numbers through the worker's loop in this process, by rows a batch: the loop alone, and with a model.

    python benchmarks/small_rows.py --rows 250000 --json docs/benchmarks/small_rows.json

``loop`` is ``worker.predict_batches`` with a function that only doubles a column; ``trees`` has a scikit-learn model of
100 trees in its place, and ``trees alone`` is that model over the same matrix without Lakemill. Rounds take turns; the
first warms up and does not count. One thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from results import parser, publish

from lakemill import Pipeline, PythonStep
from lakemill.pipelines.planning import MOST_ROWS, MOST_SCALAR_ROWS, make_plan
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.tensors.spec import arrow_tensors
from lakemill_udfs.worker import predict_batches

COLUMNS = [f"feature_{number}" for number in range(20)]
ARROW_ROWS = 10_000  # Spark's default of a record batch


def main() -> None:
    options = _options()
    table = _table(options.rows)
    matrix = np.stack([table[name].to_numpy() for name in COLUMNS], axis=1)
    runs: dict[str, Callable[[], Any]] = {"trees alone": lambda: _trees().predict(matrix)}
    for rows in (MOST_ROWS, 4 * MOST_ROWS, MOST_SCALAR_ROWS):
        runs[f"loop, {rows} a batch"] = _loop(table, double, rows)
        runs[f"trees, {rows} a batch"] = _loop(table, predict_trees, rows)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number:
                rates[name].append(options.rows / (time.perf_counter() - started))
    medians = {name: round(statistics.median(rounds)) for name, rounds in rates.items()}
    publish(
        {"rows_per_second": medians, "rows": options.rows}, ("lakemill", "numpy", "pyarrow", "scikit-learn"), options
    )


def double(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"score": batch[COLUMNS[0]] * 2}


def predict_trees(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"score": _trees().predict(np.stack([batch[name] for name in COLUMNS], axis=1)).astype("float32")}


@lru_cache
def _trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    random = np.random.default_rng(0)
    return HistGradientBoostingRegressor(max_iter=100).fit(random.random((2000, len(COLUMNS))), random.random(2000))


def _table(rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    values = {name: random.random(rows, dtype=np.float32) for name in COLUMNS}
    return pa.table({"id": np.arange(rows), **values})


def _loop(table: pa.Table, function: Callable[..., Any], rows: int) -> Callable[[], int]:
    step = PythonStep(function, {"score": {"dtype": "float32"}}, {name: name for name in COLUMNS})
    kinds = arrow_tensors(table.schema)
    plan = make_plan(resolve(Pipeline((step,))), kinds, passthrough=["id"], batch_rows=rows)
    return lambda: sum(batch.num_rows for batch in predict_batches(plan, table.to_batches(ARROW_ROWS)))


def _options() -> Any:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=250_000)
    made.add_argument("--rounds", type=int, default=3)
    return made.parse_args()


if __name__ == "__main__":
    main()
