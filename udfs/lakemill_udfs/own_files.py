"""Folders and files of this user's alone: what others on the machine can neither read nor plant."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pyarrow import fs

from lakemill_udfs.errors import SetupError

FOR_OTHERS_TO_WRITE = stat.S_IWGRP | stat.S_IWOTH


def own_folder(folder: Path) -> Path:
    """Return a folder of this user's alone, after making it.

    Raises:
        SetupError: as ``check_own``.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    check_own(folder)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    return folder


def check_own(folder: Path) -> None:
    """Look whether nobody but this user or root can have put something into a folder; one that is not there is fine.

    Raises:
        SetupError: ``CACHE_NOT_OURS``.
    """
    if not (folder.exists() or folder.is_symlink()):
        return
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid not in (os.getuid(), 0) or state.st_mode & FOR_OTHERS_TO_WRITE:
        raise SetupError(
            "CACHE_NOT_OURS",
            f"the folder '{folder}' is open to other users, who could put code into it.",
            hint="remove it, or set TMPDIR and XDG_CACHE_HOME to folders of your own.",
        )


def make_private(store: fs.FileSystem, path: str) -> None:
    """Let a file that is about to be written be readable by its owner only, on this machine's disk."""
    if isinstance(store, fs.LocalFileSystem):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
