"""Work spread over the processor's cores, a process each."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import parent_process
from threading import Thread
from typing import Any, TypeVar

from recipekit.raw import workers

Item = TypeVar("Item")
Result = TypeVar("Result")
_work: Callable[[Any], Any]


def each(make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
    """Work on items on every core and yield the results in order; few items are held at a time.

    Args:
        make: Makes the function that works on an item, once in every process.
        items: What to work on; taken as it is needed.
    """
    with ProcessPoolExecutor(workers(), initializer=_start, initargs=(make,)) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(_do, item))
            if len(waiting) > workers() + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    # A worker whose parent was killed would wait for work for ever: the queue's other end is open in its siblings.
    Thread(target=_end_with_parent, daemon=True).start()
    _work = make()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)
