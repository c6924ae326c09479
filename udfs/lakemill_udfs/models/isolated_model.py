"""A model in an environment of its own: one process that lives as long as the worker, tensors over shared memory."""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import lakemill_udfs
from lakemill_udfs.errors import ModelError, RowError
from lakemill_udfs.failures import ForeignError
from lakemill_udfs.models.frames import LendingFile, read_frame
from lakemill_udfs.models.isolated_environment import environment_for
from lakemill_udfs.models.model import Arrays, ModelSpec

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- Linux's; the folder made in it is this user's alone


class ProcessDiedError(Exception):
    """The model's process ended while it had rows: they are tried again, and alone, in a new one."""


class IsolatedModel:
    """One model, served by a process with the packages of the model's own requirements.

    Args:
        path: The model's file or folder.
        spec: What the plan knows of it.
        threads: Threads it may use inside one call.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ModelError: ``MODEL_ENVIRONMENT`` if the environment cannot be made; whatever keeps the model from loading.
    """

    def __init__(self, path: Path, spec: ModelSpec, *, threads: int, device: str) -> None:
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self._python = environment_for(spec.requirements)
        self._what = base64.b64encode(pickle.dumps((spec, str(path), threads, device))).decode()
        self._process: _Process | None = _Process(self._python, self._what)

    def predict(self, inputs: Arrays) -> Arrays:
        """Return the model's outputs; a process that died is started again by the next call."""
        if self._process is None:
            self._process = _Process(self._python, self._what)
        self._process.inputs.write(inputs)
        try:
            return read_frame(Path(self._process.ask(str(self._process.inputs.path))))
        except ProcessDiedError:
            self._process = None
            raise


class _Process:
    """The running process and its folder in shared memory; both are gone when this is."""

    def __init__(self, python: Path, what: str) -> None:
        root = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
        self.folder = Path(tempfile.mkdtemp(prefix="lakemill-model-", dir=root))
        self.inputs = LendingFile(self.folder / "inputs")
        self._child = subprocess.Popen(
            [str(python), "-m", "lakemill_udfs.models.isolated_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(Path(lakemill_udfs.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        weakref.finalize(self, _end, self._child, self.folder)
        self.ask(what)

    def ask(self, line: str) -> str:
        """Send a line and return the answer to it.

        Raises:
            ModelError: what the process says of the model.
            ProcessDiedError: it is gone.
        """
        try:
            self._child.stdin.write(line + "\n")  # type: ignore[union-attr]  # a pipe, as asked for
            self._child.stdin.flush()  # type: ignore[union-attr]  # as above
            answer = self._child.stdout.readline()  # type: ignore[union-attr]  # as above
        except (BrokenPipeError, ValueError):
            answer = ""
        how, _, said = answer.rstrip("\n").partition(" ")
        if how == "done":
            return said
        if how == "failed":
            kind, code, message, hint = (base64.b64decode(part).decode() for part in said.split(" "))
            raise (RowError if kind == "RowError" else ModelError)(code, message, hint=hint or None)
        if how == "raised":
            raise MemoryError if said == "MemoryError" else ForeignError(said)
        raise ProcessDiedError(f"exit status {self._child.wait()}")


def _end(child: subprocess.Popen[str], folder: Path) -> None:
    child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
