"""What a library says of a failure nobody foresaw: it can hold row data, so it goes into a file of its reader's own."""

from __future__ import annotations

import os
import tempfile


def kept_text(text: str, whose: str) -> str:
    """Write a text into a file that only its owner can read, and return a hint that says where it is.

    Args:
        text: All that is known.
        whose: Who says so, for the hint.
    """
    try:
        number, path = tempfile.mkstemp(prefix="lakemill-error-", suffix=".txt")  # it is made with mode 600
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        return f"{whose} own text can hold row data and is left out; no file takes it ({type(error).__name__})."
    return f"{whose} own text, which can hold row data, is in '{path}', which only its owner can read."
