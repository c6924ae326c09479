"""What the command line prints, and how it ends: lines of progress, one summary, one JSON object, one error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from lakemill_udfs.errors import LakemillError
from lakemill_udfs.masking import masked, printable, shown

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class MaskedStream:
    """A text stream without secrets, and, where it is no terminal, without control characters.

    To a terminal rich writes control sequences of its own: ``printable`` takes foreign ones out before.

    Args:
        stream: Where the text goes.
        is_plain: Whether nothing on it is control; by default where it is no terminal.
    """

    def __init__(self, stream: TextIO, *, is_plain: bool | None = None) -> None:
        self._stream = stream
        self._is_plain = not stream.isatty() if is_plain is None else is_plain

    def write(self, text: str) -> int:
        """Write a text, masked."""
        text = masked(text)
        self._stream.write(printable(text, keep="\n\t") if self._is_plain else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts, masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
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
    MaskedStream(sys.stderr, is_plain=True).writelines(traceback.format_exception(error))


def tell(line: str) -> None:
    """Print a line of progress to stderr, with the time on anything that is no terminal."""
    line = shown(line)
    if console.is_terminal:
        console.print(Text.assemble(("·", "dim"), " ", line))
    else:
        print(f"{datetime.now().astimezone():%H:%M:%S} {line}", file=sys.stderr, flush=True)


def finish(summary: str, facts: Mapping[str, object], *, as_json: bool) -> int:
    """Print a job's last line and return 0."""
    console.print(printable(summary, keep="\n"), markup=False)
    if as_json:
        print(json.dumps(facts, default=str), flush=True)
    return 0
