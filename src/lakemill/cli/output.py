"""What the command line prints, and how it ends: lines of progress, one summary, one JSON object, one error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from lakemill.config.variables import masked
from lakemill_udfs.errors import LakemillError

console = Console(stderr=True, highlight=False, soft_wrap=True)


class MaskedStream:
    """A text stream on which the values of ``${VAR}`` come out as the variables' names.

    Args:
        stream: Where the text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without the values of variables."""
        return self._stream.write(masked(text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guarded(command: Callable[[], int | None]) -> int:
    """Call a command and return its exit status; errors of Lakemill are printed as one line with code and hint.

    Nothing that it prints shows what a configuration's ``${VAR}`` stands for.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # the user's own functions are found from the working folder, as by `python -m`
    out: Any = MaskedStream(sys.stdout)
    err: Any = MaskedStream(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            return command() or 0
        except LakemillError as error:
            console.print(str(error), style="red", markup=False)
            return error.exit_code
        except KeyboardInterrupt:
            console.print("stopped", style="yellow")
            return 130


def print_unforeseen(error: Exception) -> None:
    """Print what nobody foresaw as Python does, without the values of variables."""
    MaskedStream(sys.stderr).writelines(traceback.format_exception(error))


def tell(line: str) -> None:
    """Print a line of progress to stderr, with the time on anything that is no terminal."""
    if console.is_terminal:
        console.print(f"[dim]·[/dim] {line.replace('[', chr(92) + '[')}")
    else:
        print(f"{datetime.now().astimezone():%H:%M:%S} {line}", file=sys.stderr, flush=True)


def finish(summary: str, facts: dict[str, Any], *, as_json: bool) -> int:
    """Print a job's last line and return 0."""
    console.print(summary, markup=False)
    if as_json:
        print(json.dumps(facts, default=str), flush=True)
    return 0
