"""An environment of a model's own: built once on a machine from the model's requirements, and kept by their hash."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lakemill_udfs.errors import ModelError

OURS = ("numpy", "pyarrow")
"""What the process that serves a model needs besides: the tensors arrive as Arrow."""

DONE = "lakemill-done"


def requirements_of(path: Path) -> tuple[str, ...]:
    """Return the requirements that an MLflow model's folder names.

    Raises:
        ModelError: ``MODEL_ENVIRONMENT`` if it has none.
    """
    file = path / "requirements.txt"
    if not file.is_file():
        raise ModelError(
            "MODEL_ENVIRONMENT",
            f"the model '{path.name}' has no requirements.txt, from which an environment of its own could be made.",
            hint="log it with MLflow, or leave out env: isolated.",
        )
    lines = (line.partition(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    named = {re.split(r"[\s\[<>=!~;@]", line, maxsplit=1)[0].lower() for line in found}
    return (*found, *(name for name in OURS if name not in named))


def environment_for(requirements: Sequence[str], cache: Path | None = None) -> Path:
    """Return the Python of an environment with these packages; it is built by the first process that needs it.

    Args:
        requirements: As pip takes them.
        cache: Where environments are kept; this user's cache folder by default.

    Raises:
        ModelError: ``MODEL_ENVIRONMENT`` if it cannot be built.
    """
    about = "\n".join([*sorted(requirements), platform.python_version(), platform.machine(), sys.prefix])
    folder = (cache or _cache()) / hashlib.sha256(about.encode()).hexdigest()[:20]
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of this machine ask for it at the same time
        if not (folder / DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(folder, requirements)
            (folder / DONE).touch()
    return python


def _build(folder: Path, requirements: Sequence[str]) -> None:
    uv, python = shutil.which("uv"), str(folder / "bin" / "python")
    if uv:
        made = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        install = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        made = [sys.executable, "-m", "venv", str(folder)]
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (made, [*install, *requirements]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            said = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no reason given"]
            raise ModelError(
                "MODEL_ENVIRONMENT",
                f"no environment can be made from the model's requirements: {said[0].strip()[:300]}",
                hint="install them by hand to see all of it; this machine must reach a package registry.",
            )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakemill" / "environments"
