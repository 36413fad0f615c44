"""What every request passes before it is read: who may ask, how much, how fast; and nothing of it in a log."""

import asyncio
import ipaddress
import logging
import traceback
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")
SAFE = ("GET", "HEAD")
DISCARDED = 8  # times the limit: a client that sends on while it is refused does not get to read why
log = logging.getLogger("recipekit.serving")


def refusal(status: int, *problems: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Make the answer to a request that is refused."""
    return JSONResponse({"problems": problems}, status, headers)


class Guard:
    """An ASGI middleware.

    It refuses pages of other sites: their scripts could else ask a server that only this machine reaches, by its
    address (Origin) or by a name of theirs that leads to it (Host).

    Args:
        app: What answers.
        host: Address that the server listens on.
        names: Other names that it is reached by.
        size: Bytes that a request may have.
        seconds: In which it has to arrive.
    """

    def __init__(self, app: ASGIApp, host: str, names: Collection[str], size: int, seconds: float) -> None:
        self.app = app
        self.host = host
        self.names = {host.lower(), *(name.lower() for name in names), *LOCAL}
        self.size = size
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_private(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["cache-control"] = "no-store"
            await send(message)

        refused, body = self._stranger(scope), b""
        if refused is None:
            refused, body = await self._read(Headers(scope=scope), receive)
        if refused is not None:
            await refused(scope, receive, send_private)
            return
        try:
            await self.app(scope, replay(body, receive), send_private)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]  # its message might quote what was asked
            log.error("%s in %s, line %s", type(error).__name__, frame.name, frame.lineno)
            if not started:
                await refusal(500, "the server failed; its log says where")(scope, receive, send_private)

    def _stranger(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._known(host):
            names = ", ".join(sorted(self.names))
            return refusal(
                403, f"Host: {host[:100]!r}, expected one of {names}; start the server with --name for another"
            )
        if scope["method"] in SAFE:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and (origin == "null" or origin.partition("://")[2].lower() != host.lower())
        if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return refusal(
                403, "Origin: asked by a page of another site; ask from a program, or from the server's page"
            )
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:  # what leads a browser astray is a name, never an address
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.host in EVERYWHERE

    async def _read(self, headers: Headers, receive: Receive) -> tuple[JSONResponse | None, bytes]:
        """Read a request's body, or say why not."""
        body, length = bytearray(), int(headers.get("content-length", "0"))  # h11 has seen to it that it is a number
        arrived = 0 if length <= self.size * DISCARDED else length
        try:
            async with asyncio.timeout(self.seconds):
                more = arrived == 0
                while more and arrived <= self.size * DISCARDED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return refusal(400, "request: broke off; send it again"), b""
                    part, more = message.get("body", b""), message.get("more_body", False)
                    arrived += len(part)
                    if arrived <= self.size:
                        body += part
        except TimeoutError:
            return closing(408, f"request: did not arrive within {self.seconds:g} s; send it faster"), b""
        if arrived > self.size:
            return closing(413, f"request: more than {self.size:,} bytes; send less, or several requests"), b""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            return refusal(415, f"Content-Type: found {kind[:100]!r}, expected 'application/json'; send JSON"), b""
        return None, bytes(body)


def closing(status: int, problem: str) -> JSONResponse:
    """Make the answer to a request whose rest is not read."""
    return refusal(status, problem, headers={"connection": "close"})


def replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that has been read once more, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
