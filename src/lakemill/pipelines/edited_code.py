"""A user's package that was edited since it was imported here is imported anew: what runs is what a version names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lakemill.engines.packages import Package

BEGAN = time.time()
"""Files that were last written before are what was imported, whenever that was."""

OURS = ("lakemill", "lakemill_udfs")

_IMPORTED: dict[Path, str] = {}


def import_anew_if_edited(package: Package) -> None:
    """Forget the modules of a package whose files are not those that were imported; the next import reads them.

    All of them go: what is left of the older code would be imported again by its new parts.

    Args:
        package: The user's; its data files do not count.
    """
    top = package.source.stem
    if top in OURS:
        return
    code = Package(package.source)
    known, sha256 = _IMPORTED.get(package.source), code.sha256
    _IMPORTED[package.source] = sha256
    if known == sha256:
        return
    files = [file for _, file in code.files()]
    if known is None and max((file.stat().st_mtime for file in files), default=0.0) < BEGAN:
        return
    for stale in [name for name in sys.modules if name.partition(".")[0] == top and _is_of(name, package.source)]:
        del sys.modules[stale]
    _forget_bytecode(files)
    importlib.invalidate_caches()


def _is_of(module: str, source: Path) -> bool:
    """Return whether a module was imported from a package's files: folders of one name may lie in several places."""
    file = getattr(sys.modules[module], "__file__", None)
    return file is not None and Path(file).is_relative_to(source)


def _forget_bytecode(files: Sequence[Path]) -> None:
    """Remove compiled code: Python tells it from newer text by whole seconds and the size, which an edit may keep."""
    for file in files:
        try:
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        except OSError:  # of a folder that is not ours to write: then Python did not write it there just now
            continue
