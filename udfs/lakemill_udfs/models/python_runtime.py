"""Python code as a model: a file, folder or zip with ``process_data``, or with one class derived from ``OwnModel``."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lakemill_udfs.errors import ModelError
from lakemill_udfs.failures import foreign
from lakemill_udfs.models import pickles, plain_runtime
from lakemill_udfs.models.archives import unpack
from lakemill_udfs.models.model import Arrays, ModelFiles, ModelSpec, Specs
from lakemill_udfs.models.own_model import OwnModel
from lakemill_udfs.models.pyfunc_results import to_arrays

RELEASES_LOCK = False

DISTRIBUTIONS: tuple[str, ...] = ()

OPTIONS: tuple[str, ...] = ()

options, native, write, log = plain_runtime.options, plain_runtime.native, plain_runtime.write, plain_runtime.log

FUNCTION = "process_data"


def find(path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
    """Return a Python file, folder or zip that has an entry point; the code is read, not run."""
    if "flavors" in described or path.suffix not in ("", ".py", ".zip"):
        return None
    return ModelFiles(path) if any(_is_entry(source) for _, source in _sources(path)) else None


def _sources(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the Python files of a model by name."""
    if path.suffix == ".zip":
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".py"):
                    yield name, archive.read(name).decode(errors="replace")
        return
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    for file in files:
        yield file.name if path.is_file() else file.relative_to(path).as_posix(), file.read_text(errors="replace")


def _is_entry(source: str) -> bool:
    try:
        nodes = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    return any(
        (isinstance(node, ast.FunctionDef) and node.name == FUNCTION)
        or (
            isinstance(node, ast.ClassDef)
            and any(ast.unparse(base).split(".")[-1] == "OwnModel" for base in node.bases)
        )
        for node in nodes
    )


def runs_code(path: Path, described: Mapping[str, Any]) -> bool:
    """Return true: the model is code."""
    return True


def specs(path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
    """Return what a class says; a function says nothing, its step or ``log_model`` declares it."""
    model = PythonModel(path, (), path.stem)
    return model.inputs, model.outputs


def load(path: Path, spec: ModelSpec, *, threads: int, device: str) -> PythonModel:
    """Load a function or a class."""
    return PythonModel(path, spec.outputs, spec.name)


def cause(error: Exception, path: Path) -> str:
    """Return why the code does not load, as far as pickles in it say it."""
    if isinstance(error, SyntaxError):
        return f"'{Path(str(error.filename)).name}', line {error.lineno}, is no Python"
    return pickles.cause(error)


class PythonModel:
    """A function or class of the user's.

    Args:
        path: The file, folder or zip.
        outputs: What it gives, as declared.
        name: Of the model, for messages.

    Raises:
        ModelError: ``MODEL_CODE`` if it has several entry points or a class is not as ``OwnModel`` says,
            ``MODEL_MODULE_MISSING`` if a package of its ``requirements.txt`` is not installed, ``MODEL_PATH`` if an
            archive's entry leads out of it.
    """

    def __init__(self, path: Path, outputs: Specs, name: str) -> None:
        self._unpacked = tempfile.TemporaryDirectory() if path.suffix == ".zip" else None
        folder = path if path.is_dir() else path.parent
        if self._unpacked is not None:
            unpack(path, Path(self._unpacked.name))
            folder = Path(self._unpacked.name)
        entries = [name for name, source in _sources(path) if _is_entry(source)]
        if len(entries) != 1:
            raise ModelError(
                "MODEL_CODE",
                f"model '{name}' has {len(entries)} files with {FUNCTION} or an OwnModel: {', '.join(entries)}.",
                hint="one of them is the entry point; import the others from it.",
            )
        file = folder / entries[0]
        _require(file.parent, name)
        entry = _entry(_imported(file), name)
        self.inputs: Specs = ()
        self.outputs = outputs
        if isinstance(entry, type):
            model = entry()
            model.model = _loaded(model, file.parent, name)
            self.inputs, self.outputs, entry = tuple(model.inputs), outputs or tuple(model.outputs), model.predict
        self._call = foreign(entry)

    def predict(self, inputs: Arrays) -> Arrays:
        """Return what the code gives, as tensors by name."""
        result = self._call(inputs)
        if isinstance(result, Mapping) and all(isinstance(array, np.ndarray) for array in result.values()):
            return dict(result)
        return to_arrays(result, self.outputs)


def _imported(file: Path) -> ModuleType:
    """Import a file as a module of its own; what it imports of its folder is found there, and kept to itself."""
    name = f"lakemill_model_{abs(hash(str(file)))}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101 -- it ends in .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    before, sys.modules[name] = set(sys.modules), module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
        for other in set(sys.modules) - before - {name}:
            if str(getattr(sys.modules[other], "__file__", None) or "").startswith(str(file.parent)):
                del sys.modules[other]  # another model may have a module of that name
    return module


def _entry(module: ModuleType, name: str) -> Any:
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, OwnModel) and value.__module__ == module.__name__
    ]
    function = getattr(module, FUNCTION, None)
    if len(classes) + (function is not None) != 1:
        raise ModelError(
            "MODEL_CODE",
            f"model '{name}' has {len(classes)} classes of OwnModel and {'a' if function else 'no'} {FUNCTION}; "
            "expected: one of them.",
        )
    return function or classes[0]


def _loaded(model: OwnModel, folder: Path, name: str) -> Any:
    loaded = model.load(folder)
    if model.expected_types and not isinstance(loaded, model.expected_types):
        expected = ", ".join(kind.__name__ for kind in model.expected_types)
        raise ModelError(
            "MODEL_CODE", f"model '{name}' loaded a {type(loaded).__name__}; its class expects: {expected}."
        )
    return loaded


def _require(folder: Path, name: str) -> None:
    """Look whether the packages of a ``requirements.txt`` are installed."""
    file = folder / "requirements.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for line in lines:
        package = re.match(r"[A-Za-z0-9][\w.-]*", line.strip())
        if package is None:
            continue
        try:
            importlib.metadata.version(package[0])
        except importlib.metadata.PackageNotFoundError:
            raise ModelError(
                "MODEL_MODULE_MISSING",
                f"model '{name}' needs the package '{package[0]}', which is not installed here.",
                hint="install what its requirements.txt lists; on a cluster, on the executors too.",
            ) from None
