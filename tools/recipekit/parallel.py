"""Work on every core, in order."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from threading import Thread
from typing import Any, TypeVar

from recipekit.errors import UserError
from recipekit.raw import workers

Item = TypeVar("Item")
Result = TypeVar("Result")
_work: Callable[[Any], Any]


def in_order(make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
    """Work on items in a process a core and yield the results in order; few wait at a time.

    Args:
        make: Makes the function that works on an item, once in every process.
        items: What to work on; taken as it is needed.

    Raises:
        UserError: A process was ended from outside.
    """
    with ProcessPoolExecutor(workers(), initializer=_start, initargs=(make,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_do, item))
                if len(waiting) > workers() + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process was ended from outside; was there memory left? Run it again") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says so once
    # A worker whose parent was killed would wait for work for ever: the queue's other end is open in its siblings.
    Thread(target=_end_with_parent, daemon=True).start()
    _work = make()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)
