"""What every benchmark ends with: the machine's facts, the JSON file and the plot."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a command line with the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write the result here")
    made.add_argument("--plot", type=Path, help="draw the result here")
    return made


def publish(
    result: Mapping[str, Any],
    packages: Sequence[str],
    options: argparse.Namespace,
    draw: Callable[[dict[str, Any]], Any] | None = None,
) -> None:
    """Print the result with machine and versions, and write what ``options`` ask for.

    Args:
        result: Ratios first.
        packages: Whose versions matter.
        options: Of ``parser``.
        draw: Returns a figure of the result.
    """
    machine = {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    whole = {**result, "machine": machine | result.get("machine", {}), "versions": versions}
    text = json.dumps(whole, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.plot and draw is not None:
        draw(whole).savefig(options.plot, dpi=150)


def panels(count: int, height: float) -> tuple[Any, list[Any]]:
    """Return a figure for a file, ``height`` inches high, and its panels from top to bottom."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(count, figsize=(8, height), layout="constrained", squeeze=False)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def draw_rates(axes: Any, rates: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> None:
    """Draw each system's median as a bar, its rounds as dots, and its note beside them; Lakemill's in colour."""
    for row, (name, rounds) in enumerate(rates.items()):
        axes.barh(row, statistics.median(rounds), color="#d1603d" if "lakemill" in name else "#9fb4c7", height=0.6)
        axes.plot(rounds, [row] * len(rounds), "o", color="#333333", markersize=3)
        axes.annotate(notes[name], (max(rounds), row), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rates)), [name.replace("_", " ") for name in rates])
    axes.set_xlim(0, max(map(max, rates.values())) * 1.12)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
