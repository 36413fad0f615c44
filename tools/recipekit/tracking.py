"""MLflow in training: a server that is away neither ends nor holds up a run, and gets the metrics later."""

import json
import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipekit import hub
from recipekit.console import show
from recipekit.runs import relative, write_text

if TYPE_CHECKING:
    from transformers import TrainerCallback

FILE = "unsent_metrics.jsonl"
# MLflow's own are 120 s and 7 tries, each after a longer wait: minutes for each line that is logged.
LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
NO_NAME = re.compile(r"[^0-9A-Za-z_\-. :/]")  # which MLflow refuses in a metric's name; its callback does the same
BATCH = 1000  # metrics that MLflow takes at a time


def keep_metrics(trainer: Any, output: Path) -> None:
    """Put a guard around the trainer's MLflow callback, where it has one: what MLflow does not take is kept in a file.

    Args:
        trainer: Its callbacks are changed in place.
        output: The phase's folder, which the file is written to.
    """
    from transformers.integrations import MLflowCallback

    callbacks = trainer.callback_handler.callbacks
    for place, callback in enumerate(callbacks):
        if isinstance(callback, MLflowCallback):
            callbacks[place] = _guarded(callback, output / FILE)


def _guarded(inner: Any, unsent: Path) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Guarded(TrainerCallback):
        """Calls MLflow until it fails once; from then on metrics go into the file."""

        def __init__(self) -> None:
            self.away, self.run_id = False, None

        def attempt(self, event: str, *arguments: Any, **kwargs: Any) -> bool:
            """Pass an event on; tells whether MLflow took it."""
            import mlflow

            try:
                if not self.away:
                    getattr(inner, event)(*arguments, **kwargs)
                    inner._async_log = False  # in the background a metric is lost without a word
                    self.run_id = self.run_id or (run.info.run_id if (run := mlflow.active_run()) else None)
            except Exception as error:  # MLflow raises what its store raises
                self.away = True
                logging.getLogger(__name__).warning("MLflow is away, metrics are kept: %s", reason(error))
                self.keep({"run_id": self.run_id, "reason": reason(error)})
                with suppress(Exception):
                    mlflow.end_run()  # which forgets the run first; at exit MLflow would wait for the server again
            return not self.away

        def keep(self, line: dict[str, Any]) -> None:
            with suppress(OSError), unsent.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

        def on_train_begin(self, *arguments: Any, **kwargs: Any) -> None:
            self.attempt("on_train_begin", *arguments, **kwargs)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not self.attempt("on_log", args, state, control, logs=logs or {}, **kwargs):
                values = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
                self.keep({"step": state.global_step, "time": round(time.time() * 1000), "metrics": values})

        def on_save(self, *arguments: Any, **kwargs: Any) -> None:
            self.attempt("on_save", *arguments, **kwargs)

        def on_train_end(self, *arguments: Any, **kwargs: Any) -> None:
            self.attempt("on_train_end", *arguments, **kwargs)

    return Guarded()


def reason(error: Exception) -> str:
    """Say in a line what MLflow's client met, without passwords."""
    return hub.masked((str(error).splitlines() or [type(error).__name__])[0])[:300]


def send(root: Path, config: dict[str, Any], phase: str, output: Path) -> None:
    """Send MLflow the metrics that a training kept; where it is still away, say so: nothing of the training is lost.

    Args:
        root: The folder that training ran in.
        config: The phase's, resolved.
        phase: Its name.
        output: Its folder.
    """
    unsent = output / FILE
    if not unsent.exists():
        return
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        count = 0
        while sections := _read(unsent):
            count += _send(root, config, phase, sections[0])
            _write(unsent, sections[1:])
    except Exception as error:  # MLflow raises what its store raises
        kept = f"its metrics are kept in {relative(unsent)}; the same command sends them"
        show(f"{phase}: MLflow was away while it trained, and still is ({reason(error)}); {kept}", style="yellow")
    else:
        show(f"{phase}: MLflow was away while it trained; sent {count} metrics that were kept")
        unsent.unlink()


def _read(unsent: Path) -> list[list[dict[str, Any]]]:
    """Read the sections of a file, one a training: its MLflow run, then what was kept; no torn lines."""
    sections: list[list[dict[str, Any]]] = []
    for text in unsent.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, IndexError):
            line = json.loads(text)
            if "run_id" in line:
                sections.append([])
            sections[-1].append(line)
    return sections


def _write(unsent: Path, sections: list[list[dict[str, Any]]]) -> None:
    write_text(unsent, "".join(json.dumps(line) + "\n" for section in sections for line in section))


def _send(root: Path, config: dict[str, Any], phase: str, section: list[dict[str, Any]]) -> int:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    head, *lines = section
    uri = config["mlflow_tracking_uri"]
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{root / uri.removeprefix('sqlite:///')}"
    client = MlflowClient(uri)
    if (run_id := head["run_id"]) is None:
        name = config.get("mlflow_experiment_name", "Default")
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        run_id = client.create_run(experiment, run_name=config.get("mlflow_run_name", phase)).info.run_id
    metrics = [
        Metric(NO_NAME.sub("_", name), value, line["time"], line["step"])
        for line in lines
        for name, value in line["metrics"].items()
    ]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics[first : first + BATCH])
    client.set_terminated(run_id)
    return len(metrics)
