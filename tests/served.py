"""A served model of a few thousand parameters, and a client that asks it over HTTP."""

import json
import threading
from pathlib import Path

import httpx
import torch
import uvicorn
from transformers import AutoModelForSequenceClassification

from recipekit.regressor import FILE
from recipekit.serving import Service, Settings, make_app
from recipekit.task import Task
from tiny import tiny_encoder

TARGETS = ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism")
INTERVAL = {"openness": 1.5, "conscientiousness": 0.25, "extraversion": 0.5, "agreeableness": 6.0, "neuroticism": 1.0}
LENGTH = 64


def tiny_regressor(path: Path, interval: dict[str, float] = INTERVAL) -> Path:
    """Save a random model with the heads of bigfive, as a merge leaves it."""
    tiny_encoder(path)
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(TARGETS))
    torch.nn.init.normal_(model.classifier.out_proj.weight, std=2.0)
    model.save_pretrained(path)
    facts = {"regression": {"heads": {name: {"scale": [1, 7]} for name in TARGETS}}, "max_length": LENGTH}
    (path / FILE).write_text(json.dumps({**facts, "interval": interval}), encoding="utf-8")
    return path


class Served:
    """A service in a thread of this process, on a free port."""

    def __init__(self, task: Task, folder: Path, settings: Settings) -> None:
        self.service = Service(task, folder, settings)
        self.server = uvicorn.Server(uvicorn.Config(make_app(self.service), port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> "Served":
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def values(self, request: dict) -> list[float]:
        """Ask for one dialogue and return the values."""
        reply = self.client.post("/predict", json=request)
        assert reply.status_code == 200, reply.text
        return [trait["value"] for trait in reply.json()["traits"].values()]
