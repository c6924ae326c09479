"""Where a model's files come from on a worker: its disk, an archive that Spark unpacked, or a store."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lakemill_udfs.errors import ModelError
from lakemill_udfs.files import filesystem
from lakemill_udfs.models.content import content_files, content_sha256, has_bytecode
from lakemill_udfs.models.model import ModelFiles, ModelSpec
from lakemill_udfs.own_files import own_folder

KEPT_COPIES, KEPT_SECONDS = 8, 24 * 3600
"""Fetched models that stay on a machine: so many, and any that was used within the last day."""


def locate(spec: ModelSpec) -> ModelFiles:
    """Return a model's files on this machine, as the plan knows them; fetched from a store if need be.

    A folder in which Python keeps bytecode is given as a copy without it.

    Raises:
        ModelError: ``MODEL_NOT_SHIPPED`` or ``MODEL_NOT_FOUND`` if they are not there, ``MODEL_CHANGED`` if they are
            not those of the plan.
    """
    if "://" in spec.location:
        return _checked(spec, ModelFiles(_fetched(spec), spec.beside))
    files = _checked(spec, ModelFiles(_shipped(spec) if spec.shipped else _here(spec), spec.beside))
    return replace(files, path=_without_bytecode(spec, files)) if has_bytecode(files.path) else files


def keep_download(download: Callable[[Path], Path]) -> Path:
    """Return a model that was fetched into a folder, as the one copy of its content on this machine.

    Args:
        download: Fetches it into the folder given, and returns where it is there.
    """
    with tempfile.TemporaryDirectory(dir=_copies()) as scratch:
        (room := Path(scratch) / "room").mkdir()
        found = download(room)
        for bytecode in [*found.rglob("__pycache__")]:
            shutil.rmtree(bytecode)
        target = _copies() / content_sha256(found)
        copy = Path(scratch) / "copy"
        copy.mkdir()
        found.replace(copy / (found.name if found.is_file() else "model"))
        _keep(copy, target)
    os.utime(target)
    return target / (found.name if (target / found.name).is_file() else "model")


def size_bytes(files: ModelFiles) -> int:
    """Return the size of a model's files."""
    return sum(file.stat().st_size for _, file in content_files(files))


def stamp(files: ModelFiles) -> tuple[tuple[int, int, int], ...]:
    """Return what changes when one of the files is replaced or written to."""
    states = [file.stat() for _, file in content_files(files)]
    return tuple((state.st_ino, state.st_size, state.st_mtime_ns) for state in states)


def changed(spec: ModelSpec, found: str) -> ModelError:
    """Return the error of a model whose files are not those of the plan."""
    return ModelError(
        "MODEL_CHANGED",
        f"the files of model '{spec.name}' ({spec.uri}) were replaced while the job ran: expected sha256 "
        f"{spec.sha256[:12]}..., got {found}.",
        hint="run the job again; put new models beside the old ones, or register them as versions.",
    )


def _checked(spec: ModelSpec, files: ModelFiles) -> ModelFiles:
    sha256 = content_sha256(files.path, files.beside)
    if sha256 != spec.sha256:
        raise changed(spec, f"{sha256[:12]}...")
    return files


def _shipped(spec: ModelSpec) -> Path:
    for folder in sys.path:  # Spark puts the folder with a session's files on the path of its Python workers
        if (Path(folder) / spec.location).exists():
            return Path(folder) / spec.location
    raise ModelError(
        "MODEL_NOT_SHIPPED",
        f"the archive of model '{spec.name}' did not reach this worker.",
        hint="the session must allow addArtifact; or put the model on a store that workers reach.",
    )


def _here(spec: ModelSpec) -> Path:
    if not Path(spec.location).exists():
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"the files of model '{spec.name}' are not on this machine ('{spec.uri}').",
            hint="on a cluster, let Lakemill ship the model, or put it on a store that workers reach.",
        )
    return Path(spec.location)


def _fetched(spec: ModelSpec) -> Path:
    """Return the copy of a store's model, kept by its content for all processes of this user."""
    from pyarrow import fs

    store, inside = filesystem(spec.location)
    is_file = store.get_file_info(inside).type == fs.FileType.File
    place = inside.rpartition("/")[2] if is_file else "model"
    target = _copies() / spec.sha256
    if not (target / place).exists():
        with tempfile.TemporaryDirectory(dir=_copies()) as folder:
            fetched = Path(folder) / spec.sha256
            (fetched if is_file else fetched / place).mkdir(parents=True)
            names = [place, *spec.beside] if is_file else [""]
            for name in names:
                source = f"{inside.rpartition('/')[0]}/{name}" if is_file else inside
                wanted = fetched / name if is_file else fetched / place
                wanted.parent.mkdir(parents=True, exist_ok=True)
                fs.copy_files(source, str(wanted), source_filesystem=store, destination_filesystem=fs.LocalFileSystem())
            for bytecode in [*fetched.rglob("__pycache__")]:
                shutil.rmtree(bytecode)
            _checked(spec, ModelFiles(fetched / place, spec.beside))
            _keep(fetched, target)
    os.utime(target)
    return target / place


def _without_bytecode(spec: ModelSpec, files: ModelFiles) -> Path:
    target = _copies() / spec.sha256
    if not (target / "model").exists():
        with tempfile.TemporaryDirectory(dir=_copies()) as folder:
            copy = Path(folder) / spec.sha256
            for name, file in content_files(files):
                (copy / "model" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy / "model" / name)
            _keep(copy, target)
    os.utime(target)
    return _checked(spec, ModelFiles(target / "model")).path


def _keep(copy: Path, target: Path) -> None:
    """Move a whole copy into its place; another process may have been faster, with the same content."""
    try:
        copy.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def _copies() -> Path:
    """Return this user's folder of fetched models, with those gone that nobody used for long.

    Raises:
        SetupError: ``CACHE_NOT_OURS`` if the folder is open to others, who could plant models there.
    """
    folder = own_folder(Path(tempfile.gettempdir()) / f"lakemill-models-{os.getuid()}")
    kept = sorted((copy for copy in folder.iterdir()), key=lambda copy: copy.stat().st_mtime, reverse=True)
    for copy in kept[KEPT_COPIES:]:
        if copy.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(copy, ignore_errors=True)
    return folder
