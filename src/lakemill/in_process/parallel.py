"""Calls with a time limit, and many calls side by side in threads.

A thread cannot be stopped: a call that is given up goes on in the background until it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from threading import Thread
from typing import TypeVar

from lakemill_udfs.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")


def within(timeout: float | None, call: Callable[[], Result]) -> Result:
    """Return the call's result, or give up on it.

    Args:
        timeout: Seconds; None waits for ever.
        call: What to do.

    Raises:
        RunError: ``INFER_TIMEOUT``.
    """
    if timeout is None:
        return call()
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # handed to the caller, whatever it is
            future.set_exception(error)

    Thread(target=work, daemon=True, name="lakemill-infer").start()  # a daemon does not keep the process alive
    try:
        return future.result(timeout)
    except NotDone:
        if future.done():
            raise
        raise RunError(
            "INFER_TIMEOUT",
            f"no result after {timeout:g} s; the call goes on in the background.",
            hint="give a longer timeout, or fewer rows a call.",
        ) from None


def each(
    items: Sequence[Item],
    call: Callable[[Item], Result],
    *,
    timeout: float | None = None,
    num_parallel: int = 4,
    retries: int = 0,
) -> list[Result | Exception]:
    """Call once for each item, several at a time, and return the results in the items' order.

    Args:
        items: What to call with.
        call: What to do.
        timeout: Seconds for one attempt.
        num_parallel: Most calls at a time.
        retries: Further attempts after one that failed.

    Returns:
        For each item its result, or the error of its last attempt.
    """

    def attempt(item: Item) -> Result | Exception:
        for left in range(retries, -1, -1):
            try:
                return within(timeout, lambda: call(item))
            except Exception as error:  # one item's failure is its result, whatever it is
                if not left:
                    return error
        raise AssertionError("unreachable")

    with ThreadPoolExecutor(max(1, num_parallel), thread_name_prefix="lakemill-infer") as pool:
        return list(pool.map(attempt, items))
