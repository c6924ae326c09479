"""Pickles and skops' files: which class one is of, without running it; reading a pickle, which runs what it says."""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

SUFFIXES = (".pkl", ".pickle", ".joblib")

FIRST_INSTRUCTIONS = 16
"""Instructions to look at: a pickled object begins with its class."""

SKOPS_ROOT = re.compile(rb'"__class__": "([\w.]+)",\s*"__module__": "([\w.]+)"')
"""How a skops file's ``schema.json`` begins: with what it holds."""

TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE")
"""What a pickle names a module and a class with, since protocol 4."""


def first_class(path: Path) -> str:
    """Return the class of what a pickle or a skops file holds, as ``module.Class``; empty if that cannot be seen.

    Nothing is run: a pickle's instructions are read as a list. One that joblib compressed shows nothing.
    """
    texts: list[str] = []
    try:
        if path.suffix == ".skops":
            return _skops_class(path)
        with path.open("rb") as stream:
            for operation, argument, _ in islice(pickletools.genops(stream), FIRST_INSTRUCTIONS):
                if operation.name in ("GLOBAL", "INST"):
                    return str(argument).replace(" ", ".")
                if operation.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if operation.name in TEXTS:
                    texts.append(str(argument))
    except (OSError, ValueError, IndexError, EOFError):
        pass
    return ""


def _skops_class(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("schema.json") as stream:
            found = SKOPS_ROOT.search(stream.read(200))
    except (KeyError, zipfile.BadZipFile):
        return ""
    return f"{found[2].decode()}.{found[1].decode()}" if found else ""


def read(path: Path) -> Any:
    """Return the object of a pickle, also of one that joblib made."""
    try:
        import joblib  # comes with scikit-learn
    except ImportError:
        with path.open("rb") as stream:
            return pickle.load(stream)  # noqa: S301 -- the driver asked whether the user trusts it; the sha256 is its
    return joblib.load(path)


def cause(error: Exception) -> str:
    """Return why a pickle cannot be read, as far as it says so; other texts may hold anything."""
    if isinstance(error, FileNotFoundError):
        return f"its file '{Path(str(error.filename)).name}' is missing"
    missing = re.search(r"Can't get attribute '([\w.]+)' on <module '([\w.]+)'", str(error))
    if isinstance(error, AttributeError) and missing:
        return f"its pickle needs {missing[2]}.{missing[1]}, which is not there (another version, or another class)"
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "its pickle is damaged or cut short"
    if isinstance(error, UserWarning | ValueError) and "version" in str(error).lower():
        return "it was saved by another version of its framework (see its requirements.txt)"
    return ""
