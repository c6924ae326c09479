"""Models: what they are to a pipeline, how one is located and loaded, and the cache that keeps it in a Python worker.

The cache is a module-level value, so it lives as long as the worker process does: ``spark.python.worker.reuse`` must be
true (Spark's default), or each task loads its models anew. It works only because this module is imported by name on the
executor; a function defined in a script or notebook would be pickled by value and get fresh globals in every task.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from lakemill_udfs.errors import ModelError
from lakemill_udfs.files import filesystem
from lakemill_udfs.tensors.spec import TensorSpec

CACHED_MODELS = 4
"""Models kept in one process, for pipelines of several and new versions; the least recently used goes first."""

Arrays = dict[str, NDArray[Any]]
"""Tensors by name; the first axis is the row."""


class Model(Protocol):
    """A loaded runtime."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the outputs ``(n, ...)`` of inputs ``(n, ...)``."""
        ...


@dataclass(frozen=True)
class ModelSpec:
    """How to get a model: small, frozen and picklable.

    Args:
        uri: As the user wrote it.
        location: Folder or file as an absolute path, a URI that workers reach, or the name of a shipped archive.
        flavor: Which runtime loads it.
        name: Registered name, or the file's.
        version: Registered version; None for a file.
        sha256: Of the file, or of all files of the folder.
        inputs: Its inputs.
        outputs: Its outputs; declared ones where the model does not say.
        shipped: Whether ``location`` is an archive that Spark unpacked into the worker's folder.
    """

    uri: str
    location: str
    flavor: Literal["onnx", "pyfunc"]
    name: str
    version: str | None
    sha256: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    shipped: bool = False


@dataclass
class LoadedModel:
    """A cache entry.

    Args:
        model: The runtime.
        load_seconds: What loading it took.
        model_bytes: Size of its files.
    """

    model: Model
    load_seconds: float
    model_bytes: int


@dataclass
class ModelCache:
    """Loaded models by content, threads and device; one instance a process."""

    entries: OrderedDict[tuple[Any, ...], LoadedModel] = field(default_factory=OrderedDict)

    def get(self, spec: ModelSpec, *, threads: int, device: str) -> tuple[LoadedModel, bool]:
        """Return the model and whether it was loaded just now.

        Args:
            spec: Which model.
            threads: Threads it may use inside one call; 0 leaves the runtime's default.
            device: ``auto``, ``cpu`` or ``cuda``.

        Raises:
            ModelError: ``MODEL_LOAD`` if it does not load, ``EXTRA_MISSING`` if its runtime is not installed.
        """
        key = (spec.flavor, spec.sha256, spec.inputs, spec.outputs, threads, device)
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key], False
        started = time.perf_counter()
        path = locate(spec)
        loaded = LoadedModel(_load(spec, path, threads, device), time.perf_counter() - started, folder_bytes(path))
        self.entries[key] = loaded
        while len(self.entries) > CACHED_MODELS:
            self.entries.popitem(last=False)
        return loaded, True


CACHE = ModelCache()


def locate(spec: ModelSpec) -> Path:
    """Return the local path of a model's files, fetching them from a store if need be.

    Raises:
        ModelError: ``MODEL_NOT_SHIPPED`` or ``MODEL_NOT_FOUND`` if they are not there.
    """
    if spec.shipped:
        for folder in sys.path:  # Spark puts the folder with a session's files on the path of its Python workers
            if (Path(folder) / spec.location).exists():
                return Path(folder) / spec.location
        raise ModelError(
            "MODEL_NOT_SHIPPED",
            f"the archive of model '{spec.name}' did not reach this worker.",
            hint="the session must allow addArtifact; or put the model on a store that workers reach.",
        )
    if "://" in spec.location:
        from pyarrow import fs

        store, inside = filesystem(spec.location)
        target = Path(mkdtemp(prefix="lakemill-model-"))
        if store.get_file_info(inside).type == fs.FileType.File:
            target /= inside.rpartition("/")[2]
        fs.copy_files(inside, str(target), source_filesystem=store, destination_filesystem=fs.LocalFileSystem())
        return target
    if not Path(spec.location).exists():
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"the files of model '{spec.name}' are not on this machine ('{spec.uri}').",
            hint="on a cluster, let Lakemill ship the model, or put it on a store that workers reach.",
        )
    return Path(spec.location)


def _load(spec: ModelSpec, path: Path, threads: int, device: str) -> Model:
    try:
        if spec.flavor == "onnx":
            from lakemill_udfs.onnx_model import OnnxModel

            return OnnxModel(path, threads=threads, device=device)
        from lakemill_udfs.pyfunc_model import PyfuncModel

        return PyfuncModel(path, spec.inputs, spec.outputs, threads=threads)
    except (ModelError, MemoryError):
        raise
    except ImportError as error:
        raise ModelError(
            "MODEL_MODULE_MISSING",
            f"model '{spec.name}' needs the module '{error.name}', which is not installed here.",
            hint="install what the model's requirements.txt lists; on a cluster, on the executors too.",
        ) from error
    except Exception as error:
        raise ModelError(
            "MODEL_LOAD",
            f"model '{spec.name}' ({spec.uri}) does not load: {type(error).__name__}.",
            hint="the cause is in the log above; try mlflow.pyfunc.load_model on it.",
        ) from error


def folder_bytes(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    )
