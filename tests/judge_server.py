"""An OpenAI-compatible server of a judge that goes by rules, for tests: it listens on a free port of this machine.

Its key is "secret", its model "judge". A rule is given what was asked, and returns what the judge says.
"""

import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse

KEY, NAME = "secret", "judge"


def authorised(authorization: str = Header("")) -> None:
    if authorization != f"Bearer {KEY}":
        raise HTTPException(401, f"Incorrect API key provided: {authorization}")


class JudgeServer(uvicorn.Server):
    """The server in a thread of this process; `asked` keeps the requests.

    Args:
        rule: What was asked -> what is said.
        fail_after: After so many requests every other one is refused.
    """

    def __init__(self, rule: Callable[[str], str], fail_after: int | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fail_after = fail_after
        app = FastAPI(dependencies=[Depends(authorised)])

        @app.post("/v1/chat/completions")
        def complete(request: dict) -> Any:
            self.asked.append(request)
            if self.fail_after is not None and len(self.asked) > self.fail_after:
                return JSONResponse({"error": {"message": "the engine is dead"}}, 400)
            if request["model"] != NAME:
                return JSONResponse({"error": {"message": "no such model"}}, 404)
            message = {"role": "assistant", "content": rule(request["messages"][-1]["content"])}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return {"id": "1", "object": "chat.completion", "created": 0, "model": NAME, "choices": [choice]}

        super().__init__(uvicorn.Config(app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "JudgeServer":
        self.thread.start()
        while not self.started:
            self.thread.join(0.01)
        self.url = f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.should_exit = True
        self.thread.join(20)
