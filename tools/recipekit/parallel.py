"""Work on every core, in order."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from recipekit.errors import UserError
from recipekit.raw import workers

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], start: Callable[..., None], given: tuple) -> Iterator[R]:
    """Work on items in a process a core and yield the results in order; few wait at a time.

    Args:
        work: A function of a module.
        items: What it is to work on.
        start: Called first in each process.
        given: Its arguments.

    Raises:
        UserError: A process was ended from outside.
    """
    with ProcessPoolExecutor(workers(), initializer=_start, initargs=(start, given)) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers() + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process was ended from outside; was there memory left? Run it again") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(start: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says so once
    start(*given)
