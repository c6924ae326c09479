"""Photographs in a Delta table through SqueezeNet to predictions: Lakemill, a hand-written loop and other systems.

    python benchmarks/predict.py --json docs/benchmarks/predict.json --plot docs/benchmarks/predict.png

All systems do the same work on the same table and the same cores, commit included, one after another in each round, the
first of them another one each time. Before, each scores a small table ``--warm-ups`` times, and the first round does
not count: then the session, the loop's processes and what they loaded are there already, and Java's compiler, which
takes dozens of runs, is nearly done, as in a service. ``--cold`` also measures each system's run in a new process, with
everything started in it. SqueezeNet is the quickest of the networks in the onnx package that ONNX Runtime can batch:
with a heavier one all systems wait for the same convolutions, and their ratios go to 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import draw_rates, panels, parser, publish

if TYPE_CHECKING:
    from predict_peers import Work

HERE = Path(__file__).parent
PACKAGES = ("lakemill", "pyspark", "delta-spark", "deltalake", "mlflow", "onnxruntime", "pillow", "numpy", "pyarrow")
COLD_TIMEOUT_SECONDS = 1800
WARM_UP_IMAGES = 100


def main() -> None:
    options = _options()
    # Spark's Python workers import the peers' functions by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    if options.once:
        _run_once(options.once, options.folder, options.cores)
        return
    from predict_peers import opened

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        with opened(folder, options.cores) as work:
            warm_up(work, options.warm_ups, options.systems)
            result = measure(work, options.images, options.repeats, options.systems)
        if options.cold:
            result["cold_seconds"] = {name: cold_seconds(name, folder, options.cores) for name in options.systems}
    publish(result, PACKAGES, options, plot)


def warm_up(work: Work, repeats: int, systems: Sequence[str]) -> None:
    """Let all systems score a small table in turn."""
    from predict_peers import SYSTEMS

    small = replace(work, folder=work.folder / "warm_up")
    prepare(small, WARM_UP_IMAGES)
    for _ in range(repeats):
        for name in systems:
            SYSTEMS[name](small, str(_fresh(small.folder / name)))


def measure(work: Work, images: int, repeats: int, systems: Sequence[str]) -> dict[str, Any]:
    """Run all systems in turn, ``repeats`` times after a first round, and compare their predictions."""
    from predict_peers import SYSTEMS

    image_bytes, folder = prepare(work, images), work.folder
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    loads = []
    for number in range(repeats + 1):
        for name in (*systems[number % len(systems) :], *systems[: number % len(systems)]):
            output = _fresh(folder / name)
            started = time.perf_counter()
            SYSTEMS[name](work, str(output))
            elapsed = time.perf_counter() - started
            loads.append(round(os.getloadavg()[0], 1))
            print(f"round {number}: {name} {elapsed:.1f} s, load average {loads[-1]}", file=sys.stderr, flush=True)
            if number:
                seconds[name].append(elapsed)
    return summary(seconds, images) | {
        "predictions": agreement(folder, systems),
        **({"lakemill_task_seconds": task_seconds(folder / "lakemill_tasks")} if "lakemill" in systems else {}),
        "work": {
            "images": images,
            "image_bytes": image_bytes,
            "network": "SqueezeNet 1.0, 224x224",
            "cores": work.cores,
        },
        "machine": {"load_average": loads},
    }


def prepare(work: Work, images: int) -> int:
    """Make photographs, table and models, unless they are there; return the photographs' bytes."""
    from predict_data import ingest_photos, write_network, write_photos
    from predict_peers import save_pyfunc

    photos = work.folder / "photos"
    write_photos(photos, images)
    if not Path(work.images).exists():
        ingest_photos(photos, Path(work.images), work.spark())
        write_network(Path(work.network))
        save_pyfunc(work.folder / "pyfunc", work.network)
    return sum(file.stat().st_size for file in photos.iterdir())


def summary(seconds: dict[str, list[float]], images: int) -> dict[str, Any]:
    """Return the ratios to the loop, each the median of its rounds' ratios, and all rates."""
    ratios = {
        name: round(statistics.median(loop / own for loop, own in zip(seconds["loop"], runs, strict=True)), 3)
        for name, runs in seconds.items()
    }
    rates = {name: [round(images / run, 1) for run in runs] for name, runs in seconds.items()}
    return {"ratio_to_loop": ratios, "rows_per_second": rates}


def agreement(folder: Path, systems: Sequence[str]) -> dict[str, Any]:
    """Compare all rows with the loop's: the share with the same best class, the same best five, and the probability."""
    from deltalake import DeltaTable

    def read(name: str) -> dict[str, dict[str, Any]]:
        rows = DeltaTable(str(folder / name)).to_pyarrow_table(columns=["path", "out"]).to_pylist()
        assert len({row["path"] for row in rows}) == len(rows)
        return {row["path"]: row["out"] for row in rows}

    expected = read("loop")
    result: dict[str, Any] = {"rows": len(expected), "best_classes": len({out["label"] for out in expected.values()})}
    for name in systems:
        rows = read(name)
        assert rows.keys() == expected.keys(), f"{name} has other rows than the loop"
        pairs = [(rows[path], out) for path, out in expected.items()]
        result[name] = {
            "same_best_class": sum(own["label"] == out["label"] for own, out in pairs) / len(pairs),
            "same_best_five": sum(own["top_labels"] == out["top_labels"] for own, out in pairs) / len(pairs),
            "largest_probability_difference": max(abs(own["probability"] - out["probability"]) for own, out in pairs),
        }
    return result


def task_seconds(table: Path) -> dict[str, float]:
    """Return where Lakemill's tasks spent their time, as they measured it themselves, over all cores."""
    from deltalake import DeltaTable

    tasks = DeltaTable(str(table)).to_pyarrow_table()
    names = [name for name in tasks.column_names if name == "seconds" or name.endswith("_seconds")]
    return {name: round(sum(tasks[name].to_pylist()), 2) for name in names}


def cold_seconds(name: str, folder: Path, cores: int) -> float:
    """Return the seconds of a system's run in a new process, from its start to its end."""
    _fresh(folder / name)
    command = [sys.executable, __file__, "--once", name, "--folder", str(folder), "--cores", str(cores)]
    started = time.perf_counter()
    subprocess.run(command, check=True, timeout=COLD_TIMEOUT_SECONDS)
    return round(time.perf_counter() - started, 1)


def plot(result: dict[str, Any]) -> Any:
    """Draw each system's rate and its ratio to the loop."""
    rates = dict(sorted(result["rows_per_second"].items(), key=lambda item: statistics.median(item[1])))
    figure, (axes,) = panels(1, 0.6 * len(rates) + 1.4)
    draw_rates(axes, rates, {name: f"{ratio:.2f}" for name, ratio in result["ratio_to_loop"].items()})
    axes.set_xlabel("rows per second; bar: median, dots: rounds, number: ratio to the loop")
    work = result["work"]
    title = f"{work['images']:,} photographs, Delta to Delta, {work['network']}, {work['cores']} cores"
    axes.set_title(title, loc="left", fontsize=10)
    return figure


def _run_once(name: str, folder: Path, cores: int) -> None:
    from predict_peers import SYSTEMS, opened

    with opened(folder, cores) as work:
        SYSTEMS[name](work, str(folder / name))


def _fresh(output: Path) -> Path:
    """Remove what an earlier run left: the output and, of Lakemill's, the tables beside it."""
    for suffix in ("", "_checkpoint", "_runs", "_tasks"):
        shutil.rmtree(output.with_name(output.name + suffix), ignore_errors=True)
    return output


def _options() -> argparse.Namespace:
    systems = ["lakemill", "loop", "loop_lakemill_images", "spark_udf", "predict_batch_udf"]
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--warm-ups", type=int, default=12, help="runs of each system over a small table")
    options.add_argument("--cores", type=int, default=os.cpu_count())
    options.add_argument("--systems", nargs="+", choices=systems, default=systems, help="the loop must be one of them")
    options.add_argument("--cold", action="store_true", help="also measure first runs")
    options.add_argument("--folder", type=Path, help="keep photographs, tables and models here, and use them again")
    options.add_argument("--once", choices=systems, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
