"""``make fuzz``, second part: mutated model folders, jobs' YAML and rows' paths, within limits of memory and time."""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.texts import kinds

MEMORY_BYTES = 4 * 2**30  # of address space, for the whole process
SLOWEST_SECONDS = 20.0  # for one mutant; the first of a kind may import a framework
SHOWN = 5


def main() -> int:
    """Try mutants; print the first that end with anything but a coded error, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    bad = 0
    with tempfile.TemporaryDirectory(prefix="lakemill-fuzz-") as folder:
        for name, attempt in kinds(Path(folder)).items():
            started, found = time.monotonic(), 0
            for number in range(arguments.count):
                began = time.monotonic()
                try:
                    attempt(random.Random(f"{name} {arguments.seed} {number}"))  # noqa: S311 -- the same in every run
                    problem = None
                except Exception:  # what no user should see
                    problem = traceback.format_exc(limit=-4)
                if problem is None and time.monotonic() - began > SLOWEST_SECONDS:
                    problem = f"takes {time.monotonic() - began:.1f} s"
                if problem is not None:
                    found += 1
                    if found <= SHOWN:
                        print(f"{name}, seed {arguments.seed}, number {number}: {problem}", file=sys.stderr, flush=True)
            print(f"{arguments.count:,} {name}, {found} bad, {time.monotonic() - started:.0f} s", flush=True)
            bad += found
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
