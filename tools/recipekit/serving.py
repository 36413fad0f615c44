"""The web service of a regression task's model: dialogues in, estimates with intervals out (docs/serving.md)."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from recipekit import dialogue_request
from recipekit.batcher import Batcher, QueueFull
from recipekit.dialogue_request import Batch, BodyMaker, Dialogue, Limits
from recipekit.errors import UserError
from recipekit.estimator import HeadEstimator
from recipekit.guard import Guard, refusal
from recipekit.regressor import COVERAGE, Regressor
from recipekit.runs import relative
from recipekit.task import Task

TOGETHER = 8  # texts of a batch that are padded to one length: longer stretches of padding cost more than they save
DECIMALS = 4  # as of predictions.jsonl
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False)


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        host: Address that is listened on.
        names: Other names that it is reached by.
        batch_size: Texts that are read together at most.
        wait: Seconds that a batch that is not full waits for more texts.
        queue: Texts that may wait.
        threads: Of torch.
        limits: What a request may hold.
    """

    host: str = "127.0.0.1"
    names: Collection[str] = ()
    batch_size: int = 32
    wait: float = 0.004
    queue: int = 256
    threads: int = 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Estimate:
    """What the model makes of a text.

    Attributes:
        values: A number a target.
        tokens: How many tokens the text has, those that the model does not read among them.
    """

    values: list[float]
    tokens: int


class Trait(BaseModel):
    """An estimate; between low and high are the measured values of COVERAGE of the validation rows."""

    value: float
    low: float | None
    high: float | None
    title: str
    scale: tuple[float, float]


class Answer(BaseModel):
    """The estimates of a dialogue."""

    speaker: str | None
    traits: dict[str, Trait]
    coverage: float | None
    tokens: int
    truncated: bool


class Answers(BaseModel):
    """The answers to a batch, in its order."""

    answers: list[Answer]


class Health(BaseModel):
    """What is served."""

    ready: bool
    task: str
    model: str
    targets: list[str]
    device: str
    version: str


class Problems(BaseModel):
    """Why a request was refused: what was found, what was expected and what to do, a line each."""

    problems: list[str]


class Service:
    """A model, the queue before it and what makes bodies for it.

    Args:
        task: A regression.
        folder: The merged model.
        settings: How it is served.

    Raises:
        UserError: It is no model of this task, or makes no numbers.
    """

    def __init__(self, task: Task, folder: Path, settings: Settings) -> None:
        self.task = task
        self.folder = folder
        self.settings = settings
        self.maker = BodyMaker(task, settings.limits)
        self.regressor: Regressor = HeadEstimator(task, folder, TOGETHER).regressor
        self.batcher = Batcher(
            self.estimate, settings.batch_size, settings.wait, settings.queue, lambda: set_threads(settings.threads)
        )
        [first] = self.batcher.submit(["。"])
        if not np.isfinite(first.result().values).all():
            raise UserError(f"{relative(folder)}: estimates no finite numbers; merge the last phase again, or train it")

    def estimate(self, texts: list[str]) -> list[Estimate]:
        """Estimate texts, and count their tokens."""
        tokens = self.regressor.tokenizer(texts, verbose=False)["input_ids"]
        values = self.regressor.predict(texts, batch_size=TOGETHER)
        return [Estimate(own, len(ids)) for own, ids in zip(values.tolist(), tokens, strict=True)]

    async def answer(self, dialogues: Sequence[Dialogue], batch: bool = False) -> list[Answer]:
        """Answer dialogues.

        Raises:
            UserError: They are not what they should be.
            QueueFull: Too many wait already.
        """
        bodies = await asyncio.to_thread(self.maker.bodies, dialogues, batch)
        estimates = await asyncio.gather(*map(asyncio.wrap_future, self.batcher.submit(bodies)))
        return [self._answer(*each) for each in zip(dialogues, estimates, strict=True)]

    def _answer(self, dialogue: Dialogue, estimate: Estimate) -> Answer:
        traits = {}
        for name, value in zip(self.regressor.targets, estimate.values, strict=True):
            target, half = self.task.targets[name], self.regressor.interval.get(name)
            low, high = target["scale"]
            traits[name] = Trait(
                value=round(value, DECIMALS),
                low=None if half is None else round(max(value - half, low), DECIMALS),
                high=None if half is None else round(min(value + half, high), DECIMALS),
                title=target.get("title", name),
                scale=(low, high),
            )
        return Answer(
            speaker=dialogue.speaker,
            traits=traits,
            coverage=COVERAGE if self.regressor.interval else None,
            tokens=estimate.tokens,
            truncated=estimate.tokens > self.regressor.max_length,
        )

    def health(self) -> Health:
        """Tell what is served."""
        return Health(
            ready=True,
            task=self.task.name,
            model=self.folder.resolve().name,
            targets=self.regressor.targets,
            device=str(self.regressor.model.device),
            version=version("japanese-finetune-recipes"),
        )


def set_threads(threads: int) -> None:
    """Bound torch's threads; it counts them for each thread that uses it."""
    import torch

    torch.set_num_threads(threads)


def make_app(service: Service) -> FastAPI:
    """Make the application of a service; when it ends, what waits is answered first."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)

    refused: dict[int | str, dict[str, Any]] = {
        status: {"model": Problems} for status in (400, 403, 408, 413, 415, 422, 503)
    }
    app = FastAPI(
        title=service.task.title, description=service.task.spec["summary"], version=service.health().version,
        lifespan=lifespan, docs_url=None, redoc_url=None, telemetry=NO_TELEMETRY,
    )  # fmt: skip
    page = render_page(service)

    @app.post("/predict", responses=refused)
    async def predict(dialogue: Dialogue) -> Answer:
        """Estimate the traits of a speaker of one dialogue."""
        [answer] = await service.answer([dialogue])
        return answer

    @app.post("/predict/batch", responses=refused)
    async def predict_batch(batch: Batch) -> Answers:
        """Estimate the traits of a speaker of each of several dialogues."""
        return Answers(answers=await service.answer(batch.dialogues, batch=True))

    @app.get("/health")
    async def health() -> Health:
        """Tell what is served."""
        return service.health()

    @app.get("/", include_in_schema=False)
    async def start() -> HTMLResponse:
        return HTMLResponse(page)

    add_refusals(app)
    own, limits = service.settings, service.settings.limits
    app.add_middleware(Guard, host=own.host, names=own.names, size=limits.size, seconds=limits.seconds)
    return app


def add_refusals(app: FastAPI) -> None:
    """Have every refusal say what was wrong in one form."""

    @app.exception_handler(UserError)
    async def wrong(_: Request, error: UserError) -> JSONResponse:
        return refusal(422, *error.problems)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        broken = any(each["type"] == "json_invalid" for each in error.errors())
        problems = dialogue_request.shortened(dialogue_request.schema_problems(error.errors()))
        return refusal(400 if broken else 422, *problems)

    @app.exception_handler(QueueFull)
    async def full(_: Request, error: QueueFull) -> JSONResponse:
        problem = f"queue: full; send the request again in {error.seconds} s"
        return refusal(503, problem, headers={"retry-after": str(error.seconds)})

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        hints = {
            400: "request: no JSON that can be read; mend it",
            404: "path: nothing is there; the paths are /predict, /predict/batch and /health",
            405: f"method: {request.method} is not for this path; POST to /predict and /predict/batch",
        }
        return refusal(error.status_code, hints.get(error.status_code, error.detail), headers=dict(error.headers or {}))


def render_page(service: Service) -> str:
    """Write the page at /, which asks no other machine for anything."""
    path = Path(__file__).with_name("serve.html.j2")
    template = jinja2.Template(path.read_text(encoding="utf-8"), autoescape=True)
    return template.render(
        task=service.task, dialogues=dialogue_request.context_of(service.task) is not None, health=service.health()
    )
