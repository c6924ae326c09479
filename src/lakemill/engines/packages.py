"""The user's own packages: which files of them are shipped and logged, and the digest that makes a version of them."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.callables import name_of
from lakemill_udfs.steps.declared import PythonStep

MOST_BYTES = 64 * 2**20
"""Of one package's files: it goes to every worker and into the registry."""


@dataclass(frozen=True)
class Package:
    """A top-level package or module of the user's.

    Args:
        source: Its folder, or its file.
        data: Patterns of the data files, relative to the folder, that its steps declare.
    """

    source: Path
    data: tuple[str, ...] = ()

    def files(self) -> list[tuple[str, Path]]:
        """Return what is shipped and logged, each file with its name: Python files and declared data, no dot files.

        Raises:
            ConfigError: ``CODE_TOO_LARGE`` above ``MOST_BYTES``; ``CODE_DATA`` if declared data is not there.
        """
        if self.source.is_file():
            return [(self.source.name, self.source)]
        found = dict(_python_files(self.source, self.source.name))
        for pattern in self.data:
            parts = PurePosixPath(pattern).parts
            is_inside = bool(parts) and ".." not in parts and not pattern.startswith("/")
            matching = [file for file in self.source.glob(pattern) if file.is_file()] if is_inside else []
            if not matching:
                raise ConfigError(
                    "CODE_DATA",
                    f"package '{self.source.name}' has no file '{pattern}'.",
                    hint="data: [weights/*.bin], relative to the package's folder.",
                )
            found |= {file.relative_to(self.source.parent).as_posix(): file for file in matching if self._holds(file)}
        files = sorted(found.items(), key=lambda item: item[0].split("/"))
        size = sum(file.stat().st_size for _, file in files)
        if size > MOST_BYTES:
            raise ConfigError(
                "CODE_TOO_LARGE",
                f"the files of package '{self.source.name}' are {size >> 20} MiB, more than {MOST_BYTES >> 20} MiB.",
                hint="put the steps into a small package of their own, and large data on a store.",
            )
        return files

    def _holds(self, file: Path) -> bool:
        """Return whether it is no dot file, in no dot folder, and does not lead out of the package."""
        is_inside = file.resolve().is_relative_to(self.source.resolve())
        return is_inside and not any(part.startswith(".") for part in file.relative_to(self.source).parts)

    @property
    def sha256(self) -> str:
        """Of the files with their names."""
        digest = hashlib.sha256()
        for name, file in self.files():
            content = file.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()


def _python_files(source: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Yield the Python files of a package, each with its name: no dot files, and nothing that a link leads out to.

    Each run of a pipeline of functions lists them, so it is one walk, without a call for each file.
    """
    root, folders = source.resolve(), [(os.fspath(source), name)]
    while folders:
        place, inside = folders.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{inside}/{entry.name}"))
                elif (entry.name.endswith((".py", ".pyi")) or entry.name == "py.typed") and entry.is_file():
                    file = Path(entry.path)
                    if not entry.is_symlink() or file.resolve().is_relative_to(root):
                        yield f"{inside}/{entry.name}", file


def user_package(module: str, folder: str | None = None, data: tuple[str, ...] = ()) -> Package | None:
    """Return the top-level package of a module; None if executors have it installed or built in.

    Args:
        module: ``features.colour``.
        folder: Where it is, for code of a logged pipeline; by default where Python finds it.
        data: As in ``Package``.
    """
    top = module.partition(".")[0]
    if folder is not None:
        package = Path(folder) / top
        return Package(package if package.is_dir() else package.with_suffix(".py"), data)
    spec = importlib.util.find_spec(top)
    # A folder without __init__.py has no origin, and all places of that name: also archives that Spark was sent, and
    # folders of models that are gone.
    places = [place for place in (spec and spec.submodule_search_locations) or () if Path(place).is_dir()]
    origin = places[0] if places else None if spec is None else spec.origin
    if origin is None or origin in ("built-in", "frozen"):
        return None
    path = Path(origin)
    installed = [Path(place).resolve() for place in set(sysconfig.get_paths().values())]
    if any(path.resolve().is_relative_to(place) for place in installed) or "site-packages" in path.parts:
        return None
    return Package(path, data)


def packages_of(pipeline: Pipeline, code: Mapping[str, str]) -> list[Package]:
    """Return the user's packages that a pipeline's functions are from, once each, with the data that steps declare.

    Args:
        pipeline: Its functions have import paths.
        code: The folder of the functions that come from a logged pipeline's own code.
    """
    found: dict[Path, tuple[str, ...]] = {}
    for function, data in functions_of(pipeline):
        package = user_package(function.partition(":")[0], code.get(function), data)
        if package is not None:
            found[package.source] = tuple(dict.fromkeys((*found.get(package.source, ()), *data)))
    return [Package(source, data) for source, data in found.items()]


def functions_of(pipeline: Pipeline) -> list[tuple[Any, tuple[str, ...]]]:
    """Return the functions of a pipeline's steps and checks, and the data that each declares."""
    steps = [(step.function, step.data) for step in pipeline.steps if isinstance(step, PythonStep)]
    return [*steps, *((check.function, ()) for check in pipeline.checks if check.function is not None)]


def code_sha256(function: Any, folder: str | None = None, data: tuple[str, ...] = ()) -> str | None:
    """Return the digest of a function's code: of all of its package, or of its own text if it has no import path.

    An installed package counts by its distribution's version; None where nothing can be told.
    """
    if not isinstance(function, str):
        try:
            return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
        except (OSError, TypeError):
            return None
    module = function.partition(":")[0]
    package = user_package(module, folder, data)
    if package is not None:
        return package.sha256 if package.source.exists() else None
    try:
        version = importlib.metadata.version(module.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None
    return hashlib.sha256(version.encode()).hexdigest()


def check_code(pipeline: Pipeline, code: Mapping[str, str]) -> None:
    """Refuse functions whose code is not what the plan's digests name, as where it was edited since.

    Args:
        pipeline: With digests.
        code: As for ``packages_of``.

    Raises:
        ConfigError: ``CODE_CHANGED``.
    """
    steps = [(step.function, step.data, step.sha256) for step in pipeline.steps if isinstance(step, PythonStep)]
    for function, data, sha256 in (*steps, *((check.function, (), check.sha256) for check in pipeline.checks)):
        if sha256 is not None and isinstance(function, str):
            found = code_sha256(function, code.get(function), data)
            if found != sha256:
                raise code_changed(function, sha256, found, "run the job again: it takes the new code.")


def code_changed(function: Any, expected: str, found: str | None, hint: str) -> ConfigError:
    """Return the error of a function whose code is another one."""
    got = "none" if found is None else f"{found[:12]}..."
    text = f"the code of '{name_of(function)}': expected sha256 {expected[:12]}..., got {got}."
    return ConfigError("CODE_CHANGED", text, hint=hint)


def defines(folder: str, function: str) -> bool:
    """Return whether a module below a folder has a name, by reading its text: nothing is imported."""
    module, _, name = function.partition(":")
    place = Path(folder).joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return False
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return False
    return any(name in _names(node) for node in tree.body)


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
