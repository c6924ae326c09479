"""Both engines and released peers: whole commands from shell to exit and, apart, warm, in interleaved rounds.

    python benchmarks/engines.py --json docs/benchmarks/engines.json --plot docs/benchmarks/engines.png \
        --peers-python /path/to/python

All systems of a work run one after another in each round, the first of them another one each time; the first round
does not count. ``--peers-python`` is an interpreter that has Daft and Ray Data; without it they are left out. ``cpu``
is what a command and its children used of the processors, which tells more than the clock on a machine that is
shared; ``memory_mib`` the most that all its processes held at once of memory of their own, looked at four times a
second. ``--rows`` and ``--cores`` measure how the local engine grows, ``--stream`` takes in what ``stream_latency.py``
found. ``--join`` keeps the works, and the systems of them, that the JSON file has from another call, so that each may
have a quiet moment of its own; ``windows`` says when, and which systems ran in turn there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines_lake import MAKERS, make_trees
from engines_systems import fresh
from results import panels, parser, publish

HERE = Path(__file__).parent
PACKAGES = ("lakemill", "deltalake", "pyarrow", "numpy", "onnxruntime", "scikit-learn", "mlflow", "pyspark")
PEERS_APART = ("daft", "ray")
SYSTEMS: dict[str, tuple[str, ...]] = {
    "photos": ("lakemill_local", "lakemill_spark", "loop", "daft", "ray", "spark_udf"),
    "trees": ("lakemill_local", "lakemill_spark", "loop", "daft", "ray", "spark_udf", "predict_batch_udf"),
    "tensors": ("lakemill_local", "lakemill_spark", "reading"),
    "small": ("lakemill_local", "lakemill_spark", "loop"),
    "idle": ("lakemill_local", "lakemill_spark"),
}
LIMIT_SECONDS = 120
"""Of one command; a system that takes longer, or fails, takes part no further and is named under ``failed``."""


class Failed(Exception):  # noqa: N818 -- what became of a system, not an error of the benchmark's
    """A system did not do its work."""


@dataclass(frozen=True)
class Command:
    """A system's whole command for a work.

    Args:
        system: Its name.
        work: The work's name.
        folder: Of the work.
        peers_python: For Daft and Ray Data.
    """

    system: str
    work: str
    folder: Path
    peers_python: str | None

    @property
    def output(self) -> Path:
        return self.folder / ("lakemill" if self.work == "idle" else self.system)

    @property
    def arguments(self) -> list[str]:
        """What is typed at a shell."""
        if self.system.startswith("lakemill_"):
            engine = self.system.removeprefix("lakemill_")
            program = [
                str(Path(sys.executable).with_name("lakemill")),
                "predict",
                "--config",
                str(self.folder / "job.yaml"),
            ]
            return [*program, "--set", f"engine.name={engine}", "--set", f"output.table={self.output}"]
        return self.script

    @property
    def script(self) -> list[str]:
        """The same in Python, without Lakemill's command line."""
        python = self.peers_python if self.system in PEERS_APART else sys.executable
        script = [str(python), str(HERE / "engines_systems.py"), self.system, self.work]
        return [*script, str(self.folder), str(self.output)]

    def seconds(self, limits: Sequence[str] = ()) -> dict[str, float]:
        """Run it once from shell to exit; return its seconds, those of the processors, and its peak memory."""
        if self.work != "idle":
            fresh(self.output)
        started = time.perf_counter()
        with tempfile.TemporaryFile() as said:  # no pipe: what a system leaves running would hold it open
            process = subprocess.Popen(
                [*limits, *self.arguments], stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
            alarm = threading.Timer(LIMIT_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
            alarm.start()
            memory = Memory(process.pid)
            _, status, used = os.wait4(process.pid, 0)
            alarm.cancel()
            memory.end()
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                raise Failed(f"ended with {process.returncode}: {said.read().decode()[-3000:]}")
        return {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu": round(used.ru_utime + used.ru_stime, 2),
            "memory_mib": memory.peak >> 10,
        }


class Memory(threading.Thread):
    """Looks at what the processes of a session hold of memory of their own, in KiB, until it is told to end."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.session, self.peak, self._over = session, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.25):
            self.peak = max(self.peak, sum(map(self._held, Path("/proc").glob("[0-9]*"))))

    def _held(self, process: Path) -> int:
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != self.session:
                return 0
            lines = (process / "status").read_text().splitlines()
        except OSError:  # it has ended
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

    def end(self) -> None:
        self._over.set()
        self.join()


class Warm:
    """A process that runs a system's work again and again."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.process = subprocess.Popen(
            [*command.script, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("again\n" if self.command.work == "idle" else "fresh\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.command.system} of {self.command.work} failed in its warm process")
        return round(float(answer), 3)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(LIMIT_SECONDS)


def main() -> None:
    options = _options()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as scratch:
        lake = options.folder or Path(scratch)
        earlier = json.loads(options.json.read_text()) if options.join and options.json.exists() else {}
        kept = ("works", "growth", "stream", "windows")
        result: dict[str, Any] = {name: earlier[name] for name in kept if name in earlier}
        result.setdefault("works", {})
        result["peers"] = peers_of(options.peers_python) or earlier.get("peers", {})
        for work in options.works:
            commands = prepare(lake, work, options)
            began = now()
            measured, failed = rounds(commands, options.rounds)
            found = result["works"].get(work, {}) | {"size": size_of(work, options)}
            found["whole"] = found.get("whole", {}) | compared(measured)
            if failed:
                found["failed"] = found.get("failed", {}) | failed
            result["works"][work] = found
            windows = result.setdefault("windows", [])
            windows.append({"work": work, "from": began, "to": now(), "systems": list(measured)})
            publish(result, PACKAGES, options, plot)  # what is measured is kept, whatever the next one does
            if warm_ones := [command for command in commands if command.system in options.warm]:
                found["warm"] = found.get("warm", {}) | ratios(warm(warm_ones, options.rounds))
        if options.rows:
            result["growth"] = growth(lake, options.rows, options.cores)
        if options.stream:
            found = json.loads(options.stream.read_text())["engines"]
            result["stream"] = {engine: {"p50_seconds": one["p50_seconds"]} for engine, one in found.items()}
    publish(result, PACKAGES, options, plot)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def peers_of(python: str | None) -> dict[str, str]:
    """Return the versions of the peers that have an interpreter of their own."""
    if python is None:
        return {}
    asked = f"from importlib.metadata import version; print(*(version(name) for name in {PEERS_APART}))"
    said = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(PEERS_APART, said, strict=True))


def size_of(work: str, options: argparse.Namespace) -> int:
    return max(1, round(MAKERS[work][1] * options.share))


def prepare(lake: Path, work: str, options: argparse.Namespace) -> list[Command]:
    """Make a work's table, model and job unless they are there."""
    folder = lake / work
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "job.yaml").exists():
        MAKERS[work][0](folder, size_of(work, options))
    names = [name for name in SYSTEMS[work] if options.peers_python or name not in PEERS_APART]
    names = [name for name in names if not options.systems or name in options.systems]
    return [Command(name, work, folder, options.peers_python) for name in names]


def rounds(commands: list[Command], count: int) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Run all commands in turn; return what they took, and why some took part no further."""
    found: dict[str, list[dict[str, float]]] = {command.system: [] for command in commands}
    failed: dict[str, str] = {}
    for number in range(count + 1):
        shift = number % len(commands)
        for command in (*commands[shift:], *commands[:shift]):
            if command.system in failed:
                continue
            try:
                measured = command.seconds() | {"load_average": round(os.getloadavg()[0], 1)}
            except Failed as error:
                failed[command.system] = str(error).splitlines()[0]
                found.pop(command.system)
                print(f"{command.work} {number}: {command.system} failed: {error}", file=sys.stderr, flush=True)
                continue
            print(f"{command.work} {number}: {command.system} {measured}", file=sys.stderr, flush=True)
            if number:
                found[command.system].append(measured)
    return found, failed


def warm(commands: list[Command], count: int) -> dict[str, list[float]]:
    """Run all works in turn, each in a process of its own that has run it twice already."""
    processes = [Warm(command) for command in commands]
    found: dict[str, list[float]] = {command.system: [] for command in commands}
    try:
        for number in range(count + 2):
            shift = number % len(processes)
            for process in (*processes[shift:], *processes[:shift]):
                seconds = process.seconds()
                print(f"{process.command.work} warm {number}: {process.command.system} {seconds}", file=sys.stderr)
                if number > 1:
                    found[process.command.system].append(seconds)
    finally:
        for process in processes:
            process.end()
    return found


def compared(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return each system's rounds, with the ratio of the hand-written work's seconds to its own."""
    clock = ratios({name: [one["seconds"] for one in measured] for name, measured in found.items()})
    return {name: clock[name] | {"rounds": found[name]} for name in found}


def ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and the median over rounds of the reference's seconds by each system's."""
    reference = next((name for name in ("loop", "reading", "lakemill_local") if name in seconds), next(iter(seconds)))
    return {
        name: {
            "median_seconds": round(statistics.median(own), 2),
            f"ratio_to_{reference}": round(
                statistics.median(one / other for one, other in zip(seconds[reference], own, strict=True)), 2
            ),
            "seconds": own,
        }
        for name, own in seconds.items()
    }


def growth(lake: Path, rows: Sequence[int], cores: Sequence[int]) -> list[dict[str, float]]:
    """Return what the local engine's whole command takes for so many small rows on so many cores."""
    found = []
    for count in rows:
        folder = lake / f"rows_{count}"
        if not folder.exists():
            folder.mkdir(parents=True)
            make_trees(folder, count)
        command = Command("lakemill_local", "trees", folder, None)
        for number in cores:
            limits = ["taskset", "--cpu-list", ",".join(map(str, range(number)))]
            found.append({"rows": count, "cores": number} | command.seconds(limits))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def plot(result: dict[str, Any]) -> Any:
    """Draw each work's whole commands, streams and growth, with the machine and the versions below."""
    works = result["works"]
    more = [draw for name, draw in (("stream", draw_stream), ("growth", draw_growth)) if name in result]
    height = 0.32 * sum(len(found["whole"]) + 3 for found in works.values()) + 2 * len(more)
    figure, axes = panels(len(works) + len(more), height)
    for draw, one in zip(more, axes[len(works) :], strict=True):
        draw(one, result)
    for one, (work, found) in zip(axes, works.items(), strict=False):
        entries = sorted(found["whole"].items(), key=lambda entry: -entry[1]["median_seconds"])
        for row, (name, measured) in enumerate(entries):
            colour = "#d1603d" if "lakemill" in name else "#9fb4c7"
            one.barh(row, measured["median_seconds"], color=colour, height=0.6)
            one.plot(measured["seconds"], [row] * len(measured["seconds"]), "o", color="#333333", markersize=3)
        one.set_yticks(range(len(entries)), [name.replace("_", " ") for name, _ in entries])
        one.set_title(f"{work}, {found['size']:,}: seconds from shell to exit", loc="left", fontsize=10)
    machine, versions = result["machine"], result["versions"] | result["peers"]
    text = f"{machine['processors']} processors ({machine['processor']}), {machine['system']}"
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    figure.supxlabel("\n".join(textwrap.wrap(f"{text}; {named}", 110)), fontsize=7)
    return figure


def draw_stream(axes: Any, result: dict[str, Any]) -> None:
    for row, found in enumerate(result["stream"].values()):
        axes.barh(row, found["p50_seconds"], color="#d1603d", height=0.6)
    axes.set_yticks(range(len(result["stream"])), [f"lakemill {engine}" for engine in result["stream"]])
    axes.set_title("stream of small appends, 1 s trigger: median seconds, commit to commit", loc="left", fontsize=10)


def draw_growth(axes: Any, result: dict[str, Any]) -> None:
    for cores in sorted({found["cores"] for found in result["growth"]}):
        points = [(found["rows"], found["seconds"]) for found in result["growth"] if found["cores"] == cores]
        axes.plot(*zip(*points, strict=True), "o-", color="#d1603d" if cores > 1 else "#9fb4c7", label=f"{cores} cores")
    axes.set_xscale("log")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("small rows, lakemill local: seconds from shell to exit by rows", loc="left", fontsize=10)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--works", nargs="*", default=list(MAKERS), help=f"of {', '.join(MAKERS)}")
    options.add_argument("--systems", nargs="+", help="only these")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--warm", nargs="*", default=[], help="these systems also in warm processes")
    options.add_argument("--join", action="store_true", help="keep the works that --json holds already")
    options.add_argument("--share", type=float, default=1.0, help="of each work's usual size")
    options.add_argument("--rows", type=int, nargs="*", default=[], help="of the local engine's growth")
    options.add_argument("--stream", type=Path, help="the JSON of stream_latency.py")
    options.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    options.add_argument("--peers-python", help="an interpreter with daft and ray")
    options.add_argument("--folder", type=Path, help="keep tables and models here, and use them again")
    return options.parse_args()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
