"""Work for the pool's tests; workers import it by name."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, replace

from lakemill.engines.local.pool import Tell
from lakemill_udfs.errors import ModelError

RELEASED = threading.Event()


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; some have a meaning of their own."""

    batch: int = 64
    most: int = 0  # a larger batch is the death of the worker; 0: none is

    def prepare(self) -> None:
        """Nothing is shared."""

    def __call__(self, item: int | str, tell: Tell) -> tuple[int, int, int]:
        if item == "die" and self.batch > self.most:
            tell(self.batch)
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "memory" and self.batch > self.most:
            raise MemoryError
        if item == "coded":
            raise ModelError("MODEL_LOAD", "does not load.", hint="mend it.")
        if item == "secret":
            raise ValueError("the row's secret")
        if item == "print":
            print("from the worker")
        if item == "hold":
            RELEASED.wait()
        if item == "slow":
            for _ in range(600):
                time.sleep(0.1)
                tell(1)
        tell(10)
        return (item * 2 if isinstance(item, int) else 0, self.batch, os.getpid())

    def smaller(self) -> Doubling | None:
        return replace(self, batch=self.batch // 2) if self.batch > 1 else None
