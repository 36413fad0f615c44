"""An OpenAI-compatible server of a small model, as vLLM is one: token ids or text as prompt, schema, log-probabilities.

    python tests/openai_server.py MODEL_FOLDER PORT

The key is "secret"; the model is called "tiny". It answers one request at a time.
"""

import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse

from recipekit import decoding, models
from recipekit.segments import encode

KEY, NAME, BOS = "secret", "tiny", 1


def refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "error", "code": status}}, status)


def authorised(authorization: str = Header("")) -> None:
    if authorization != f"Bearer {KEY}":
        raise HTTPException(401, f"Incorrect API key provided: {authorization}")


@torch.inference_mode()
def logprobs_of(model: Any, prompt: list[int], answer: list[int]) -> list[float]:
    """Score every token of an answer in one pass without a cache, forced ones too, as a server does."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float().log_softmax(1)
    return logits.gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()


def make_app(
    folder: str, names: tuple[str, ...] = (NAME,), fail_after: int | None = None, longest: int = 2048
) -> FastAPI:
    model, tokenizer = models.load_model(folder, torch.float32), models.load_tokenizer(folder)
    eos = tokenizer.eos_token_id
    lock = threading.Lock()
    app = FastAPI(dependencies=[Depends(authorised)])
    app.state.requests = []

    @app.get("/v1/models")
    def list_models() -> dict:
        return {"object": "list", "data": [{"id": name, "object": "model", "max_model_len": longest} for name in names]}

    @app.post("/v1/completions")
    def complete(request: dict) -> Any:
        with lock:
            app.state.requests.append(request)
            if fail_after is not None and len(app.state.requests) > fail_after:
                return refuse(400, "the engine is dead")
            if request["model"] not in names:
                return refuse(404, f"The model `{request['model']}` does not exist.")
            prompt = request["prompt"]
            ids = prompt if isinstance(prompt, list) else [BOS, *encode(tokenizer, [prompt])]
            schema = request.get("structured_outputs", {}).get("json")
            grammar = decoding.Grammar(tokenizer, schema, model.config.vocab_size, eos) if schema else None
            most = request["max_tokens"]
            [one] = decoding.generate(model, [ids], grammar, eos=eos, max_new_tokens=most, batch_size=1)
            tokens = [*one.ids, eos] if one.finished else one.ids
            choice: dict[str, Any] = {
                "index": 0, "finish_reason": "stop" if one.finished else "length", "stop_reason": None,
                "text": tokenizer.decode(one.ids, skip_special_tokens=True),
            }  # fmt: skip
            if request.get("return_token_ids"):
                choice["token_ids"] = tokens
            if request.get("logprobs") is not None:
                values = logprobs_of(model, ids, tokens)
                choice["logprobs"] = {"tokens": tokenizer.convert_ids_to_tokens(tokens), "token_logprobs": values}
            return {"id": "1", "object": "text_completion", "created": 0, "model": NAME, "choices": [choice]}

    return app


class Server(uvicorn.Server):
    """The server in a thread of this process, on a free port."""

    def __init__(self, folder: str, **options: Any) -> None:
        self.app = make_app(folder, **options)
        super().__init__(uvicorn.Config(self.app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "Server":
        self.thread.start()
        while not self.started:
            self.thread.join(0.01)
        self.url = f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.should_exit = True
        self.thread.join(20)


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[1]), port=int(sys.argv[2]))
