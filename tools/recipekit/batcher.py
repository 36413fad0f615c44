"""A bounded queue before a model: texts that wait are read together, by one thread."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")
FIRST_GUESS = 0.05  # seconds a text, until the first were read
SMOOTHING = 0.2  # weight of the latest batch in the mean of seconds a text
LONGEST_WAIT = 60  # seconds that a refused client is told to wait at most


class QueueFull(Exception):
    """There is no room for more texts.

    Attributes:
        seconds: After how long there should be.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"the queue is full; room is expected in {seconds} s")


class Batcher(Generic[Result]):
    """Reads texts in batches, in a thread of its own, so that a model is only ever used by one thread.

    Args:
        read: Texts -> a result each, in their order.
        batch_size: Texts that are read together at most.
        wait: Seconds that a batch that is not full waits for more texts.
        capacity: Texts that may wait; those being read are not counted.
        prepare: Called once in the thread, before anything is read.
    """

    def __init__(
        self, read: Callable[[list[str]], Sequence[Result]], batch_size: int, wait: float, capacity: int,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._read = read
        self._batch_size = batch_size
        self._wait = wait
        self._capacity = capacity
        self._prepare = prepare
        self._waiting: deque[tuple[str, Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = FIRST_GUESS
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, texts: Sequence[str]) -> list[Future[Result]]:
        """Queue texts, all of them or none.

        Returns:
            What becomes the result of each; it raises what `read` raised.

        Raises:
            QueueFull: They do not fit.
        """
        futures: list[Future[Result]] = [Future() for _ in texts]
        with self._changed:
            if self._closed or len(self._waiting) + len(texts) > self._capacity:
                seconds = math.ceil(len(self._waiting) * self._seconds)
                raise QueueFull(min(max(seconds, 1), LONGEST_WAIT))
            self._waiting.extend(zip(texts, futures, strict=True))
            self._changed.notify()
        return futures

    def close(self) -> None:
        """Take no more texts, and return once those that wait are read."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        self._prepare()
        while batch := self._gather():
            wanted = [(text, future) for text, future in batch if future.set_running_or_notify_cancel()]
            if wanted:
                started = time.monotonic()
                self._run(wanted)
                self._seconds += SMOOTHING * ((time.monotonic() - started) / len(wanted) - self._seconds)

    def _run(self, batch: list[tuple[str, Future[Result]]]) -> None:
        try:
            results = self._read([text for text, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:  # texts of others do not fail with it
                self._run([one])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)

    def _gather(self) -> list[tuple[str, Future[Result]]]:
        """Wait for texts and take a batch of them; empty once closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= self._batch_size or self._closed, self._wait)
            return [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
