"""A server of the OpenAI form on this machine that streams back what it was told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def served_chat(status: int = 200) -> Iterator[tuple[str, list[dict]]]:
    """Run it; yields its base URL and the requests for replies that it gets."""
    requests: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, body: bytes, kind: str, code: int = 200) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:  # noqa: N802
            listed = {"object": "list", "data": [{"id": "sakura", "object": "model", "max_model_len": 4096}]}
            self.answer(json.dumps(listed).encode(), "application/json")

        def do_POST(self) -> None:  # noqa: N802
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if status != 200:
                self.answer(b'{"error": {"message": "the engine is dead"}}', "application/json", status)
                return
            requests.append(request)
            pieces = ["「", request["messages"][-1]["content"], "」", "だね"]
            events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
            events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            text = "".join(
                f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', **one})}\n\n" for one in events
            )
            self.answer(f"{text}data: [DONE]\n\n".encode(), "text/event-stream")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
