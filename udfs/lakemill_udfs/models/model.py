"""What a model is to a pipeline (``Model``), how to get one (``ModelSpec``), and what a runtime's module offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from lakemill_udfs.tensors.spec import TensorSpec

Arrays = dict[str, NDArray[Any]]
"""Tensors by name; the first axis is the row."""

Specs = tuple[TensorSpec, ...]


class Model(Protocol):
    """A loaded model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the outputs ``(n, ...)`` of inputs ``(n, ...)``."""
        ...


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine.

    Args:
        path: The file, or the folder with all that belongs to the model.
        beside: Files that a single file reads too, relative to its own folder: external weights.
    """

    path: Path
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """How to get a model: small, frozen and picklable.

    Args:
        uri: As the user wrote it.
        location: Folder or file as an absolute path, a URI that workers reach, or its place in a shipped archive.
        flavor: Which runtime loads it, a name of ``flavors.RUNTIMES``.
        name: Registered name, or the file's.
        version: Registered version; None for a file.
        sha256: Of its file or files; a worker compares what it loads with it.
        inputs: Its inputs.
        outputs: Its outputs; declared ones where the model does not say.
        shipped: Whether ``location`` is an archive that Spark unpacked into the worker's folder.
        beside: As in ``ModelFiles``.
        options: As the runtime's ``options`` gave them.
        certificate: How a converted model agrees with the original, in one line.
        env: ``isolated`` for one with an environment and a process of its own.
        requirements: Of that environment, as pip takes them.
    """

    uri: str
    location: str
    flavor: str
    name: str
    version: str | None
    sha256: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    shipped: bool = False
    beside: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    certificate: str | None = None
    env: str | None = None
    requirements: tuple[str, ...] = ()


class Runtime(Protocol):
    """What the module of a runtime offers; ``flavors`` finds it by the flavor's name."""

    DISTRIBUTIONS: tuple[str, ...]
    """What a server that runs such a model must have installed."""

    RELEASES_LOCK: bool
    """Whether it works without Python's lock, so that threads can share one model."""

    OPTIONS: tuple[str, ...]
    """The names of the options that a model step may give it."""

    def find(self, path: Path, described: Mapping[str, Any]) -> ModelFiles | None:
        """Return the files that this runtime runs, None if the model is none of its own.

        Args:
            path: A file, or a folder.
            described: Content of the folder's ``MLmodel`` file; empty for a file.
        """
        ...

    def options(self, described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that a model runs with: those that a step gives, over what the model says of itself."""
        ...

    def runs_code(self, path: Path, described: Mapping[str, Any]) -> bool:
        """Return whether loading what ``find`` gave runs code that came with it, as a pickle's; nothing is run here."""
        ...

    def specs(self, path: Path, described: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Specs, Specs]:
        """Return the inputs and outputs, as far as the model says them.

        Args:
            path: What ``find`` gave.
            described: As there.
            options: As ``options`` gave them.

        Raises:
            ModelError: ``MODEL_INPUT_TYPE`` for what no tensor can hold; whatever keeps the model from loading.
        """
        ...

    def load(self, path: Path, spec: ModelSpec, *, threads: int, device: str) -> Model:
        """Load a model.

        Args:
            path: Its file or folder here.
            spec: What the plan knows of it.
            threads: Threads it may use inside one call; 0 leaves the runtime's default.
            device: ``auto``, ``cpu`` or ``cuda``.
        """
        ...

    def cause(self, error: Exception, path: Path) -> str:
        """Return in the runtime's terms why a model does not load; empty if the exception's type says all."""
        ...

    def native(self, path: Path, options: Mapping[str, Any]) -> Any:
        """Return the framework's own object of what ``find`` gave, which ``log`` and converters take; None without."""
        ...

    def write(self, value: Any, folder: Path) -> Path | None:
        """Write a Python object into a folder as a file that ``find`` takes; None if it is no model of this kind."""
        ...

    def log(self, value: Any, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        """Log what ``native`` gave through MLflow's own flavor and return MLflow's ``ModelInfo``; None if it has none.

        Args:
            value: The framework's object.
            options: As ``options`` gave them.
            arguments: What MLflow's ``log_model`` takes for every flavor: name, signature, requirements ...
        """
        ...
