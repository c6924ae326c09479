"""A worker in a process of its own, and the parent's end of it.

They talk over a socket. Its end is the end of the worker, whatever the worker is doing: so neither Ctrl-C nor SIGTERM
nor ``kill -9`` of the parent leaves a process behind that would hold the shell's pipes open. The process starts from
nothing but this package: no fork, which threads of runtimes do not survive, and no second run of the user's script.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from lakemill_udfs.failures import worker_failure

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ORT_NUM_THREADS")
START = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({descriptor})"
STDERR = 2


class ProcessWorker:
    """The parent's end.

    Args:
        events: Where what the worker says is put, as ``(event, worker, payload)``.
        threads: Threads that numeric libraries may use in it; 0 leaves that to them.
    """

    def __init__(self, events: queue.SimpleQueue[Any], threads: int) -> None:
        ours, theirs = socket.socketpair()
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {}
        with theirs:
            command = START.format(path=sys.path, module=__name__, descriptor=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=STDERR,  # stdout is the command's: its last line may be JSON
                env=variables | os.environ,
                process_group=0,  # Ctrl-C is for the parent alone, which ends its batch or its workers
            )
        self._connection = Connection(ours.detach())
        self._events = events
        self._reader = threading.Thread(target=self._read, daemon=True, name="lakemill-worker")
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                event, payload = self._connection.recv()
                self._events.put((event, self, payload))
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            self._events.put(("died", self, how))

    def give(self, work: Any, item: Any) -> None:
        """Hand it an item; if it has died, the reader says so."""
        try:
            self._connection.send((work, item))
        except OSError:
            return

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()

    def join(self) -> None:
        """Wait until it is gone."""
        self._process.wait()
        self._reader.join()
        self._connection.close()


def serve(descriptor: int) -> None:
    """Be the worker: do what comes in over the socket, until its other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    connection = Connection(descriptor)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()

    def say(event: str, payload: Any) -> None:
        try:
            connection.send((event, payload))
        except OSError:
            os._exit(0)  # the parent is gone

    while True:
        try:
            work, item = inbox.get()
            event, payload = "done", work(item, lambda rows: say("rows", rows))
        except MemoryError:
            os._exit(1)  # what is left of this process may not work; the item is repeated by another one
        except Exception as error:  # whatever it is, the parent raises it
            event, payload = "failed", worker_failure(error)
        say(event, payload)


def _receive(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone: nobody waits for what the main thread is doing
