"""An OpenAI-compatible server of chat completions whose answers a test writes, over real HTTP."""

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY, MODEL = "sk-canary-0123456789abcdef", "m"
LINES = (
    "ただいま",
    "おかえり、今日はどうだった？",
    "少し疲れたよ",
    "そっか、ゆっくり休もうね",
    "ありがとう",
    "いつでも話してね",
)


def talk(number=0, turns=2):
    """Write an answer of the right form, each with other words."""
    rng = random.Random(number)
    letters = [chr(code) for code in range(0x3042, 0x3093)]
    said = [f"{LINES[i % len(LINES)]}{''.join(rng.choices(letters, k=30))}" for i in range(2 * turns)]
    roles = ("user", "assistant")
    return json.dumps({"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]},
                      ensure_ascii=False)  # fmt: skip


class Refusal:
    """An answer that is an error."""

    def __init__(self, status, message="no", headers=None):
        self.status, self.message, self.headers = status, message, headers or {}


class ChatServer:
    """Answers each request by `answer(number, request)`: a text, a Refusal, or (text, finish_reason).

    Its key is KEY, its model MODEL. A reply that is asked for as a stream comes a character at a time.
    """

    def __init__(self, answer):
        self.answer, self.requests, self.lock = answer, [], threading.Lock()
        self.most = self.now = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"owner": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        listed = {"id": MODEL, "object": "model", "max_model_len": 4096}
        self.reply(200, {"object": "list", "data": [listed]})

    def do_POST(self):
        owner = self.owner
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            number = len(owner.requests)
            owner.requests.append(request | {"path": self.path, "key": self.headers["Authorization"]})
            owner.now += 1
            owner.most = max(owner.most, owner.now)
        try:
            found = owner.answer(number, request)
        finally:
            with owner.lock:
                owner.now -= 1
        if self.headers["Authorization"] != f"Bearer {KEY}":
            found = Refusal(401, f"Incorrect API key provided: {self.headers['Authorization']}")
        if isinstance(found, Refusal):
            return self.reply(found.status, {"error": {"message": found.message, "code": found.status}}, found.headers)
        text, reason = found if isinstance(found, tuple) else (found, "stop")
        if request.get("stream"):
            return self.stream(text, reason)
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        return self.reply(200, body)

    def stream(self, text, reason):
        choices = [{"index": 0, "delta": {"content": one}} for one in text]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        events = [json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [one]}) for one in choices]
        self.send(200, "".join(f"data: {one}\n\n" for one in [*events, "[DONE]"]).encode(), "text/event-stream")

    def reply(self, status, body, headers=None):
        self.send(status, json.dumps(body).encode(), "application/json", headers)

    def send(self, status, content, kind, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)
