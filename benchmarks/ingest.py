"""Files into Delta: Lakemill beside plain ``binaryFile`` to Delta and ``cp -r``, on small files and on photographs.

    python benchmarks/ingest.py --json docs/benchmarks/ingest.json --plot docs/benchmarks/ingest.png

All of them read the same files, one after another in each round, another one first each time; the first round warms
them up and does not count. Lakemill also reads every header, hashes every file and checks that it is whole; the others
do not. ``again`` is Lakemill's second run over the same files, which finds nothing to do.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from results import draw_rates, panels, parser, publish

from lakemill import IngestConfig, get_session, ingest_images

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PACKAGES = ("lakemill", "pyspark", "delta-spark", "pyarrow", "pillow", "numpy")
FILES_A_FOLDER = 1000
SYSTEMS = ("lakemill", "binaryFile", "cp")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        sets = {"small files": folder / "small", "photographs": folder / "photos"}
        write_images(sets["small files"], count=options.small_files, size=(48, 96), quality=(70, 95))
        write_images(sets["photographs"], total_bytes=int(options.photo_gb * 1e9), size=(400, 427), quality=(97, 100))
        spark = get_session("benchmark", {"spark.master": f"local[{options.cores}]"})
        measured = {name: measure(source, folder / "out", options.repeats, spark) for name, source in sets.items()}
    result = {"ratio_to_binaryFile": {name: ratios(one["seconds"]) for name, one in measured.items()}} | {
        "work": measured,
        "cores": options.cores,
    }
    publish(result, PACKAGES, options, plot)


def write_images(
    folder: Path,
    *,
    size: tuple[int, int],
    quality: tuple[int, int],
    count: int | None = None,
    total_bytes: int | None = None,
) -> None:
    """Write JPEGs, crops of scikit-learn's sample photographs, until there are ``count`` or ``total_bytes`` of them.

    Args:
        folder: Is made, with folders of ``FILES_A_FOLDER``; if it is there already, it is taken as it is.
        size: Smallest and largest height in pixels; the width is half as much more.
        quality: Lowest and highest JPEG quality.
        count: How many files.
        total_bytes: How many bytes in all.
    """
    from sklearn.datasets import load_sample_images

    if folder.exists():
        return
    samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random = np.random.default_rng(0)
    number = written = 0
    while (number < count) if count else (written < (total_bytes or 0)):
        sample = samples[number % len(samples)]
        height = int(random.integers(*size))
        width = min(sample.width, height * 3 // 2)
        left, top = int(random.integers(sample.width - width + 1)), int(random.integers(sample.height - height + 1))
        encoded = io.BytesIO()
        crop = sample.crop((left, top, left + width, top + height))
        crop.save(encoded, "JPEG", quality=int(random.integers(*quality)))
        file = folder / f"{number // FILES_A_FOLDER:03}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded.getvalue())
        number, written = number + 1, written + encoded.tell()


def measure(source: Path, output: Path, repeats: int, spark: SparkSession) -> dict[str, Any]:
    """Run all systems in turn, ``repeats`` times after a warm-up, and check that they wrote every file."""
    runs: dict[str, Callable[[], None]] = {
        "lakemill": lambda: _lakemill(source, output, spark),
        "binaryFile": lambda: (
            spark.read.format("binaryFile")
            .option("recursiveFileLookup", "true")
            .load(str(source))
            .write.format("delta")
            .save(str(output))
        ),
        "cp": lambda: _copy(source, output),
    }
    files = [file for file in source.rglob("*") if file.is_file()]
    seconds: dict[str, list[float]] = {name: [] for name in (*SYSTEMS, "again")}
    loads = []
    for number in range(repeats + 1):
        for name in (*SYSTEMS[number % len(SYSTEMS) :], *SYSTEMS[: number % len(SYSTEMS)]):
            shutil.rmtree(output, ignore_errors=True)
            elapsed = {name: _timed(runs[name])}
            check(output, len(files), name)
            if name == "lakemill":
                elapsed["again"] = _timed(runs[name])
            loads.append(round(os.getloadavg()[0], 1))
            print(f"{source.name}, round {number}: {elapsed}, load average {loads[-1]}", file=sys.stderr, flush=True)
            for key, value in elapsed.items() if number else ():
                seconds[key].append(round(value, 2))
    return {
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "seconds": seconds,
        "load_average": loads,
    }


def _lakemill(source: Path, output: Path, spark: SparkSession) -> None:
    job = IngestConfig.load(source={"path": str(source), "label": "parent"}, output={"table": str(output)})
    ingest_images(job, spark)


def _copy(source: Path, output: Path) -> None:
    subprocess.run(["cp", "-r", str(source), str(output)], check=True)


def _timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def check(output: Path, files: int, name: str) -> None:
    """Count what was written, without Spark."""
    if name == "cp":
        assert sum(1 for file in output.rglob("*") if file.is_file()) == files
    else:
        from deltalake import DeltaTable

        assert DeltaTable(str(output)).to_pyarrow_dataset().count_rows() == files


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return how many times as fast as ``binaryFile`` each one is: the median of the rounds' ratios."""
    plain = seconds["binaryFile"]
    return {
        name: round(statistics.median(one / own for one, own in zip(plain, runs, strict=True)), 2)
        for name, runs in seconds.items()
    }


def plot(result: dict[str, Any]) -> Any:
    """Draw each system's rate and its ratio to ``binaryFile``."""
    figure, all_axes = panels(len(result["work"]), 4)
    for axes, (work, one) in zip(all_axes, result["work"].items(), strict=True):
        rates = {name: [one["bytes"] / 1e6 / own for own in one["seconds"][name]] for name in reversed(SYSTEMS)}
        draw_rates(axes, rates, {name: f"{result['ratio_to_binaryFile'][work][name]:.2f}" for name in rates})
        axes.set_title(
            f"{one['files']:,} {work}, {one['bytes'] / 1e9:.2f} GB, {result['cores']} cores", loc="left", fontsize=10
        )
    all_axes[-1].set_xlabel("MB per second; bar: median, dots: rounds, number: times as fast as binaryFile")
    return figure


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--small-files", type=int, default=20_000)
    options.add_argument("--photo-gb", type=float, default=2.0, help="photographs in gigabytes")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--cores", type=int, default=os.cpu_count())
    options.add_argument("--folder", type=Path, help="keep the images here, and use them again")
    return options.parse_args()


if __name__ == "__main__":
    main()
