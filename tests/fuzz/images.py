"""``make fuzz``: mutated images through infer, ingest's check, transform, thumbnails and the report, within limits."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.image_mutants import mutants, ways

BATCH = 200
MEMORY_BYTES = 4 * 2**30  # of address space, for the whole process
SLOWEST_SECONDS = 10.0  # for one file in one way


def main() -> int:
    """Try mutants; print each that ends anything but itself, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    bad, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lakemill-fuzz-") as folder:
        every = ways(Path(folder))
        for first in range(0, arguments.count, BATCH):
            files = list(mutants(min(BATCH, arguments.count - first), arguments.seed + first))
            bad += sum(_try(name, way, files, Path(folder)) for name, way in every.items())
            print(f"{first + len(files):,} files, {bad} bad, {time.monotonic() - started:.0f} s", flush=True)
    return 1 if bad else 0


def _try(name, way, files, folder) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- as ways() has them
    """Return how many files of a batch end a way; each is kept beside the folder for a closer look."""
    started = time.monotonic()
    try:
        lost = way(files) != len(files)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        lost, what = True, f"{type(error).__name__}: {error}"
    else:
        what = "rows are missing"
    if not lost and time.monotonic() - started < SLOWEST_SECONDS * max(1, len(files) // BATCH):
        return 0
    if len(files) > 1:
        half = len(files) // 2
        return _try(name, way, files[:half], folder) + _try(name, way, files[half:], folder)
    if not lost:
        what = f"takes {time.monotonic() - started:.1f} s"
        if time.monotonic() - started < SLOWEST_SECONDS:
            return 0
    kept = Path(tempfile.gettempdir()) / f"lakemill-fuzz-{name}-{abs(hash(files[0]))}"
    kept.write_bytes(files[0])
    print(f"{name}: {what[:200]} ({kept})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
