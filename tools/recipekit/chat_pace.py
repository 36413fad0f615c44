"""A pace that requests to a server keep: so many requests, and so many tokens, a minute."""

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.0  # seconds


class Stopped(Exception):
    """The run was stopped while a request waited for its turn."""


class Pace:
    """Lets requests through so that no minute has more of them, or of their tokens, than is allowed.

    Args:
        requests: Requests a minute; None: any number.
        tokens: Tokens a minute; None: any number. A request of more waits for an empty minute.
        clock: Seconds, for tests.
    """

    def __init__(
        self, requests: int | None = None, tokens: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requests, self.tokens = requests, tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._started: deque[tuple[float, int]] = deque()  # time and tokens of the last minute's requests

    def wait(self, tokens: int) -> None:
        """Wait until a request of so many tokens may start, and count it.

        Raises:
            Stopped: By `stop`.
        """
        while not self._stopping.is_set():
            with self._lock:
                seconds = self._seconds(tokens)
                if seconds <= 0:
                    self._started.append((self._clock(), tokens))
                    return
            self._stopping.wait(seconds)
        raise Stopped

    def stop(self) -> None:
        """Let no request through any more."""
        self._stopping.set()

    def _seconds(self, tokens: int) -> float:
        """Return how long to wait before it is worth looking again; 0: the request may start."""
        now = self._clock()
        while self._started and now - self._started[0][0] >= WINDOW:
            self._started.popleft()
        full = self.requests is not None and len(self._started) >= self.requests
        used = sum(count for _, count in self._started)
        full |= self.tokens is not None and bool(used) and used + tokens > self.tokens
        return self._started[0][0] + WINDOW - now if full else 0.0
