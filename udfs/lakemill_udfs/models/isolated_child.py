"""The process that serves one model in an environment of its own; it lives as long as the one that started it.

Its parent writes lines to its standard input, a file's name each, and gets a line back: ``done NAME``, ``failed`` with
a code and a text of ours, or ``raised`` with the class of any other exception. What the model
prints goes to the standard error.
"""

from __future__ import annotations

import base64
import os
import pickle
import queue
import shutil
import sys
import threading
from pathlib import Path
from typing import IO

from lakemill_udfs.errors import LakemillError
from lakemill_udfs.failures import is_out_of_memory
from lakemill_udfs.models.flavors import loading, runtime
from lakemill_udfs.models.frames import LentFrame, write_frame
from lakemill_udfs.models.model import Model, ModelSpec


def main() -> None:
    """Load the model of the first line, then answer one line after the other."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    spec, path, threads, device = pickle.loads(base64.b64decode(lines.get()))  # noqa: S301 -- from the process that started this one
    model = _load(spec, Path(path), threads, device, answers)
    for at in iter(lines.get, None):
        lent = LentFrame(Path(at))
        try:
            write_frame(Path(f"{at}.out"), model.predict(lent.arrays()))
        except Exception as error:
            lent.give_back()
            _fail(answers, error)
        else:
            lent.give_back()
            print("done", f"{at}.out", file=answers)


def _listen(lines: queue.Queue[str]) -> None:
    folder: Path | None = None
    for number, line in enumerate(sys.stdin):
        lines.put(line.rstrip("\n"))
        folder = Path(line).parent if number else None  # the first line is the model
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)  # of a parent that was killed: the memory of its frames
    os._exit(0)  # the parent is gone, and with it whoever waits for an answer


def _load(spec: ModelSpec, path: Path, threads: int, device: str, answers: IO[str]) -> Model:
    try:
        with loading(spec.flavor, spec.name, path):
            model = runtime(spec.flavor).load(path, spec, threads=threads, device=device)
    except Exception as error:
        _fail(answers, error)
        sys.exit(1)
    print("done", "loaded", file=answers)
    return model


def _fail(answers: IO[str], error: Exception) -> None:
    """Send what the parent may know: our own text, or the class of any other exception, whose text may be a row's."""
    if isinstance(error, LakemillError):
        parts = (type(error).__name__, error.code, error.message, error.hint or "")
        print("failed", *(base64.b64encode(part.encode()).decode() for part in parts), file=answers)
    else:
        print("raised", "MemoryError" if is_out_of_memory(error) else type(error).__name__, file=answers)


if __name__ == "__main__":
    main()
