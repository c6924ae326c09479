"""The table of runtimes: a flavor's name to the module that runs it. No other module knows a flavor."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from lakemill_udfs.errors import LakemillError, ModelError
from lakemill_udfs.models.model import ModelFiles, ModelSpec, Runtime, Specs
from lakemill_udfs.tensors.spec import declared

RUNTIMES = {
    "onnx": "onnx_runtime",
    "xgboost": "xgboost_runtime",
    "sklearn": "sklearn_runtime",
    "torch": "torch_runtime",
    "keras": "keras_runtime",
    "tensorflow": "tensorflow_runtime",
    "huggingface": "huggingface_runtime",
    "diffusion": "diffusion_runtime",
    "python": "python_runtime",
    "pyfunc": "pyfunc_runtime",
}
"""The first that takes a model runs it: the native runtimes stand before the one that takes every MLflow model."""

ROW_BY_ROW = ("xgboost", "sklearn")
"""Runtimes of models that read a row's numbers and make no layers of them: a call may have many rows."""

NOTED_KEY = "lakemill_model"
"""Key in an MLflow model's metadata."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def runtime(flavor: str) -> Runtime:
    """Return the module of a flavor's runtime; a framework itself is imported when a model is loaded.

    Raises:
        ModelError: ``MODEL_FLAVOR`` if this version knows no such flavor.
    """
    if flavor not in RUNTIMES:
        raise ModelError(
            "MODEL_FLAVOR",
            f"no runtime here is called '{flavor}'; there are: {', '.join(RUNTIMES)}.",
            hint="a pipeline that a newer version logged needs that version.",
        )
    return cast("Runtime", importlib.import_module(f"lakemill_udfs.models.{RUNTIMES[flavor]}"))


def shares_threads(spec: ModelSpec) -> bool:
    """Return whether threads can share a model: its runtime works without Python's lock, in this process.

    A runtime of many kinds of models may look at the one in question.
    """
    if spec.env is not None:
        return False
    module = runtime(spec.flavor)
    looks = getattr(module, "releases_lock", None)
    return module.RELEASES_LOCK or (looks is not None and bool(looks(Path(spec.location))))


def recognise(path: Path, described: Mapping[str, Any], forced: str | None = None) -> tuple[str, ModelFiles] | None:
    """Return the flavor that runs a model and the files it runs; None if no runtime takes it.

    Args:
        path: A file, or a folder.
        described: Content of the folder's ``MLmodel`` file; empty for a file.
        forced: The flavor that the user asks for.

    Raises:
        ModelError: ``MODEL_FLAVOR`` if no runtime is called as the one that is forced.
    """
    for flavor in RUNTIMES if forced is None else (forced,):
        found = runtime(flavor)
        with loading(flavor, path.name, path):
            files = found.find(path, described)
        if files is not None:
            return flavor, files
    return None


def options(
    flavor: str, name: str, path: Path, described: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options that a model runs with.

    Raises:
        ModelError: ``MODEL_OPTION`` if its runtime has no option of a name that is given; ``MODEL_LOAD`` and others of
            ``loading``.
    """
    unknown = sorted(set(given) - set(runtime(flavor).OPTIONS))
    if unknown:
        raise ModelError(
            "MODEL_OPTION",
            f"model '{name}' runs on {flavor}, which has no option '{unknown[0]}'; "
            f"it has: {', '.join(runtime(flavor).OPTIONS) or 'none'}.",
        )
    logged = dict(logged_with(described).get("options") or {})
    with loading(flavor, name, path):
        return runtime(flavor).options(described, logged | dict(given))


def logged_with(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what ``lakemill.log_model`` noted of a model: its exact ``inputs``, ``outputs`` and ``options``."""
    return (described.get("metadata") or {}).get(NOTED_KEY) or {}


def runs_code(flavor: str, name: str, path: Path, described: Mapping[str, Any]) -> bool:
    """Return whether loading a model runs code that came with it.

    Raises:
        ModelError: ``MODEL_LOAD`` and others of ``loading``.
    """
    with loading(flavor, name, path):
        return runtime(flavor).runs_code(path, described)


def specs(
    flavor: str, name: str, path: Path, described: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Specs, Specs]:
    """Return a model's inputs and outputs, as far as it says them.

    Raises:
        ModelError: ``MODEL_LOAD`` and others of ``loading``; ``MODEL_INPUT_TYPE`` for what no tensor can hold.
    """
    with loading(flavor, name, path):
        return noted_specs(described, options) or runtime(flavor).specs(path, described, options)


def noted_specs(described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs] | None:
    """Return the inputs and outputs that ``lakemill.log_model`` noted; None if it did not, or for other options."""
    noted = logged_with(described)
    if not noted or any(options.get(key) != value for key, value in noted.get("options", {}).items()):
        return None
    inputs, outputs = (
        [declared(name, raw) for name, raw in noted.get(side, {}).items()] for side in ("inputs", "outputs")
    )
    return tuple(inputs), tuple(outputs)


def written(value: Any, folder: Path) -> tuple[str, Path]:
    """Write a model that is a Python object as its framework's file; return the flavor and the file.

    Raises:
        ModelError: ``MODEL_FLAVOR`` if it is no model of a framework that is known here.
    """
    for flavor in RUNTIMES:
        path = runtime(flavor).write(value, folder)
        if path is not None:
            return flavor, path
    raise ModelError(
        "MODEL_FLAVOR",
        f"a {type(value).__name__} is no model of a framework that is known here; there are: {', '.join(RUNTIMES)}.",
        hint="save it to a file or folder and give its path.",
    )


@contextmanager
def loading(flavor: str, name: str, path: Path) -> Iterator[None]:
    """Turn what a runtime raises while it loads a model into an error that names the cause.

    Raises:
        ModelError: ``MODEL_LOAD``; ``MODEL_MODULE_MISSING`` if a module that the model needs is not installed.
    """
    try:
        yield
    except (LakemillError, MemoryError):
        raise
    except Exception as raised:  # each runtime has classes of its own for each way in which a file can be bad
        error = _first(raised)
        if isinstance(error, ImportError):
            raise ModelError(
                "MODEL_MODULE_MISSING",
                f"model '{name}' needs the module '{error.name}', which is not installed here.",
                hint="install what the model's requirements.txt lists; on a cluster, on the executors too.",
            ) from raised
        cause = _file_cause(path) or runtime(flavor).cause(error, path)
        said = f"{type(error).__name__}: {cause}" if cause else type(error).__name__
        raise ModelError(
            "MODEL_LOAD",
            f"model '{name}' does not load ({flavor}): {said}.",
            hint="get or export the file again." if cause else "load it with its own framework to see the whole cause.",
        ) from raised


def _first(error: Exception) -> Exception:
    """Return the exception that MLflow wrapped into its own, where it did."""
    inner = error.__cause__ or error.__context__
    is_wrapped = type(error).__module__.startswith("mlflow.") and isinstance(inner, Exception)
    return _first(inner) if is_wrapped and isinstance(inner, Exception) else error


def _file_cause(path: Path) -> str:
    """Return what is wrong with a model's files whatever the runtime: what stands for a file and is none."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        with file.open("rb") as stream:
            head = stream.read(len(LFS_POINTER))
        if head == LFS_POINTER:
            return f"'{file.name}' is a Git LFS pointer, not the file itself (git lfs pull)"
        if file == path and not head:
            return f"'{file.name}' is empty"
        if file == path and head.lstrip().lower().startswith((b"<!doctype", b"<html")):
            return f"'{file.name}' is a web page"
    return ""
