"""A model's identity: which files are its content, and the sha256 of them.

What the sha256 covers is what runs: a folder's links that lead out of it and everything that is no regular file are
refused, and Python's bytecode, which is not hashed, is never read (``files.locate`` gives a folder without it).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.model import ModelFiles

WRITTEN_BY_MLFLOW = "registered_model_meta"
"""A note that MLflow writes into the folder of a fetched model; nothing reads it."""

BYTECODE = re.compile(r"[\w.]+\.\w+-\d+(\.opt-\d)?\.pyc")
"""A file as Python keeps it in ``__pycache__``; no import can name it."""

NO_PATHS = {"uri", "model_code_path", "loader_module", "run_id", "model_uuid"}
"""Keys of an ``MLmodel`` file whose values are not opened as paths: MLflow takes the last part of a code path."""


def content_files(files: ModelFiles) -> list[tuple[str, Path]]:
    """Return a model's files, each with its name in the model, in order of the names.

    Raises:
        ModelError: ``MODEL_LINK`` for a link that leads out of the folder or to a folder, ``MODEL_FILE`` for what is
            no regular file, or stands in ``__pycache__`` and is no bytecode.
    """
    if files.path.is_file():
        folder = files.path.parent
        return [(files.path.name, files.path), *((name, folder / name) for name in files.beside)]
    return sorted((file.relative_to(files.path).as_posix(), file) for file in _walk(files.path))


def content_sha256(path: Path, beside: tuple[str, ...] = ()) -> str:
    """Return the sha256 of a file, or of all files of a model with their names, in order.

    Args:
        path: The file, or the model's folder.
        beside: Files beside a file that belong to the model: external weights.

    Raises:
        ModelError: as ``content_files``; ``MODEL_LOAD`` if a file beside it is missing.
    """
    digest = hashlib.sha256()
    for name, file in content_files(ModelFiles(path, beside)):
        if path.is_dir() or beside:
            digest.update(name.encode() + b"\0")
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(2**20):
                    digest.update(chunk)
        except FileNotFoundError as error:
            raise ModelError(
                "MODEL_LOAD",
                f"the weights file '{name}' of model '{path.name}' is missing beside it.",
                hint="keep a model and its external weights in one folder.",
            ) from error
    return digest.hexdigest()


def has_bytecode(path: Path) -> bool:
    """Return whether Python keeps bytecode in a model's folder."""
    return path.is_dir() and any(path.rglob("__pycache__"))


def check_paths(described: Mapping[str, Any], name: str) -> None:
    """Look whether every path that an ``MLmodel`` file names stays in its folder.

    Raises:
        ModelError: ``MODEL_PATH`` if one does not.
    """
    for key, value in _texts(described.get("flavors") or {}, "flavors"):
        last = key.rpartition(".")[2]
        inside = PurePosixPath(value.replace("\\", "/"))
        leads_out = ".." in inside.parts or inside.is_absolute() or bool(PureWindowsPath(value).drive)
        if last not in NO_PATHS and (leads_out or value.startswith("file:")):
            raise ModelError(
                "MODEL_PATH",
                f"the MLmodel file of '{name}' names a path outside its folder ({key}).",
                hint="log the model again; a model holds all of its files.",
            )


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files of a folder that are its content."""
    for folder, folders, names in os.walk(root):
        at = Path(folder)
        for name in folders:
            if (at / name).is_symlink():
                raise _refused("MODEL_LINK", root, at / name, "is a link to a folder")
        for name in names:
            file = at / name
            if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)):
                raise _refused("MODEL_LINK", root, file, "is a link that leads out of the model's folder")
            if not file.is_file():
                raise _refused("MODEL_FILE", root, file, "is no regular file")
            if at.name == "__pycache__":
                if not BYTECODE.fullmatch(name):
                    raise _refused("MODEL_FILE", root, file, "stands among bytecode and is none")
            elif not (at == root and name == WRITTEN_BY_MLFLOW):
                yield file


def _refused(code: str, root: Path, file: Path, why: str) -> ModelError:
    return ModelError(
        code,
        f"'{file.relative_to(root).as_posix()}' in the model '{root.name}' {why}.",
        hint="a model's folder holds its files themselves: copy it with cp -rL.",
    )
