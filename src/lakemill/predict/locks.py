"""One run of a job at a time: a lock file that gives a clear message.

It is only for the message. Two runs that do not see each other's lock still double nothing: Delta refuses the second
commit of a transaction.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyarrow import fs

from lakemill.config.predict import PredictConfig
from lakemill.predict.progress import checkpoint_of
from lakemill_udfs.errors import RunError, TableError
from lakemill_udfs.files import filesystem
from lakemill_udfs.own_files import make_private

logger = logging.getLogger(__name__)

FIELDS = (("id", str), ("host", str), ("pid", int), ("heartbeat", int | float))
HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
POLL_SECONDS = 1.0
SETTLE_SECONDS = 0.05
"""Of two runs that take a lock at the same time, where none can be made whole and at once (object stores, a dead run's
lock in its place), the one that wrote it last has it: each looks again after this."""


@contextmanager
def hold(config: PredictConfig, tell: Callable[[str], None], *, wait: bool = False) -> Iterator[None]:
    """Hold a job's lock: the file ``<checkpoint>.lock``.

    A lock whose process is dead is taken over: on the same host that is known from the process, elsewhere from a
    heartbeat older than ``STALE_SECONDS``.

    Args:
        config: The job.
        tell: Gets a line when this run waits or takes a dead run's lock over.
        wait: Wait until the other run ends.

    Raises:
        RunError: ``JOB_RUNNING`` if another run holds it and ``wait`` is false.
        TableError: ``OUTPUT_NOT_WRITABLE`` if there is no place for it.
    """
    path = f"{checkpoint_of(config).location}.lock"
    own = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    told = False
    while True:
        other = _read(path)
        if other is None:
            if _make(path, own):
                break
            other = _read(path)  # another run was faster, or the storage has no such thing
        if other is not None and not is_alive(other):
            left = f"that a dead run left (process {other['pid']} on {other['host']})" if other else "that is damaged"
            tell(f"taking over the lock {left}")
            other = None
        if other is None:
            _write(path, own)
            time.sleep(SETTLE_SECONDS)
            other = _read(path)
            if not other or other["id"] == own["id"]:
                break
        where = f"process {other['pid']} on {other['host']}"
        if not wait:
            raise RunError(
                "JOB_RUNNING",
                f"a run of '{config.name}' is going on ({where}).",
                hint=f"--wait starts when it ends. Its lock is '{path}'.",
            )
        if not told:
            tell(f"waiting for the run that is going on ({where})")
            told = True
        time.sleep(POLL_SECONDS)
    done = threading.Event()
    beats = threading.Thread(target=_beat, args=(path, own, done), daemon=True, name="lakemill-lock")
    beats.start()
    try:
        yield
    finally:
        done.set()
        beats.join()
        if (_read(path) or {}).get("id") == own["id"]:
            store, inside = filesystem(path)
            store.delete_file(inside)


def running(config: PredictConfig) -> str | None:
    """Return process and host of the run of a job that is going on; None if there is none."""
    lock = _read(f"{checkpoint_of(config).location}.lock")
    return f"process {lock['pid']} on {lock['host']}" if lock is not None and is_alive(lock) else None


def is_alive(lock: dict[str, Any]) -> bool:
    """Return whether the run that wrote a lock may still be going on."""
    if not lock:
        return False
    if lock["host"] != socket.gethostname():
        return bool(time.time() - lock["heartbeat"] < STALE_SECONDS)
    try:
        os.kill(lock["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's process
    return bool(_started(lock["pid"]) == lock.get("started"))


def _started(pid: int) -> str | None:
    """Return when a process started, in the kernel's own units: the next process with its number has another."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    state, *numbers = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return None if state == "Z" else numbers[18]  # a zombie is dead, only nobody has asked how it ended


def _beat(path: str, own: dict[str, Any], done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        try:
            _write(path, own)
        except TableError as error:  # a full disk may be free again at the next beat
            logger.warning("%s", error)


def _make(path: str, own: dict[str, Any]) -> bool:
    """Make a lock whole and at once, as one of several runs can on this machine's disks; return whether it is made.

    Raises:
        TableError: ``OUTPUT_NOT_WRITABLE`` if there is no place for it.
    """
    store, inside = filesystem(path)
    if not isinstance(store, fs.LocalFileSystem):
        return False
    whole = f"{path}.{own['id']}"
    _write(whole, own)
    try:
        os.link(filesystem(whole)[1], inside)
    except OSError:
        return False
    finally:
        store.delete_file(filesystem(whole)[1])
    return True


def _write(path: str, own: dict[str, Any]) -> None:
    store, inside = filesystem(path)
    try:
        store.create_dir(inside.rpartition("/")[0], recursive=True)
        make_private(store, inside)
        with store.open_output_stream(inside) as stream:
            stream.write(json.dumps({**own, "heartbeat": time.time()}).encode())
    except OSError as error:
        raise TableError(
            "OUTPUT_NOT_WRITABLE",
            f"the lock '{path}' beside the output cannot be made ({type(error).__name__}).",
            hint="check the path and permissions of output.table, or set output.checkpoint.",
        ) from error


def _read(path: str) -> dict[str, Any] | None:
    """Return a lock; None if there is none, empty if it is damaged, as by a power cut."""
    store, inside = filesystem(path)
    try:
        with store.open_input_stream(inside) as stream:
            text = bytes(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise TableError(
            "OUTPUT_NOT_WRITABLE",
            f"the lock '{path}' is another user's.",
            hint="let one user run the job; if that one's run is dead, remove the lock.",
        ) from error
    if not text:  # while the other run is writing it; its next reader sees it whole
        return None
    try:
        lock = json.loads(text)
    except ValueError:
        return {}
    return lock if isinstance(lock, dict) and all(isinstance(lock.get(name), kind) for name, kind in FIELDS) else {}
