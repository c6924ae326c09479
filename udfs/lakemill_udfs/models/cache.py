"""The cache that keeps loaded models in a Python worker.

It is a module-level value, so it lives as long as the worker process does: ``spark.python.worker.reuse`` must be true
(Spark's default), or each task loads its models anew. It works only because this module is imported by name on the
executor; a function defined in a script or notebook would be pickled by value and get fresh globals in every task.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lakemill_udfs.models.files import changed, locate, size_bytes, stamp
from lakemill_udfs.models.flavors import loading, runtime
from lakemill_udfs.models.isolated_model import IsolatedModel
from lakemill_udfs.models.model import Model, ModelSpec

CACHED_MODELS = 4
"""Models kept in one process, for pipelines of several and new versions; the least recently used goes first."""


@dataclass
class LoadedModel:
    """A cache entry.

    Args:
        model: The model.
        load_seconds: What loading it took.
        model_bytes: Size of its files.
        is_counted: Whether a task has said that it was loaded.
        is_warm: Whether it was called.
    """

    model: Model
    load_seconds: float
    model_bytes: int
    is_counted: bool = False
    is_warm: bool = False


@dataclass
class ModelCache:
    """Loaded models by content, threads and device; one instance a process."""

    entries: OrderedDict[tuple[Any, ...], LoadedModel] = field(default_factory=OrderedDict)

    def get(self, spec: ModelSpec, *, threads: int, device: str, most: int = 0) -> tuple[LoadedModel, bool]:
        """Return the model and whether it was loaded just now.

        Args:
            spec: Which model.
            threads: Threads it may use inside one call; 0 leaves the runtime's default.
            device: ``auto``, ``cpu`` or ``cuda``.
            most: Models that one pipeline has, all of which are kept.

        Raises:
            ModelError: ``MODEL_LOAD`` if it does not load, ``MODEL_CHANGED`` if its files are not those of the plan,
                ``EXTRA_MISSING`` if its runtime is not installed.
        """
        key = (
            spec.flavor,
            spec.sha256,
            spec.inputs,
            spec.outputs,
            repr(spec.options),
            spec.env,
            spec.requirements,
            threads,
            device,
        )
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key], False
        started = time.perf_counter()
        files = locate(spec)
        before = stamp(files)
        with loading(spec.flavor, spec.name, files.path), _no_bytecode():
            load = IsolatedModel if spec.env == "isolated" else runtime(spec.flavor).load
            model: Model = load(files.path, spec, threads=threads, device=device)
        if stamp(files) != before:
            raise changed(spec, "other files while they were read")
        loaded = LoadedModel(model, time.perf_counter() - started, size_bytes(files))
        self.entries[key] = loaded
        while len(self.entries) > max(CACHED_MODELS, most):
            self.entries.popitem(last=False)
        return loaded, True


CACHE = ModelCache()


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Let a model's own code be imported without bytecode left in its folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
