"""Axolotl's own schema, strict: what Axolotl would drop in silence is an error here.

Importing Axolotl takes seconds, so it happens once, in a worker process that forks a child a config: a plugin
that one config registers changes the schema of every later one in the same process.
"""

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from os.path import commonprefix
from typing import Any, NamedTuple, get_args, get_origin

import psutil

from recipekit import ROOT
from recipekit.console import GC_THRESHOLD
from recipekit.errors import UserError
from recipekit.process import seconds_of

# What the production YAMLs are written for, so that they are judged alike on every machine: an A100, the lesser of the
# two cards (no fp8).
CAPABILITIES: dict[str, dict[str, Any]] = {
    "gpu": {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 1, "compute_capability": "sm_80"},
    "cpu": {"bf16": False, "fp8": False, "tf32": False, "n_gpu": 1, "compute_capability": None},
}
LIMIT, LIMIT_SECONDS = "CHECK_SCHEMA_SECONDS", 600  # environment variable, and what holds without it

Key = tuple[str | int, ...]


class Finding(NamedTuple):
    """What is wrong with one key of a config; the empty key stands for the config as a whole."""

    key: Key
    message: str


def validate(jobs: list[tuple[dict[str, Any], str]]) -> list[list[Finding]]:
    """Validate configs against Axolotl's schema, in a worker process.

    Args:
        jobs: A config and the profile ("gpu" or "cpu") whose capabilities it is judged with, each.

    Returns:
        The findings of each config, in the order of the jobs.

    Raises:
        RuntimeError: The worker died; the message holds the end of its output.
        UserError: It took longer than CHECK_SCHEMA_SECONDS, and was ended.
    """
    limit = seconds_of(LIMIT, LIMIT_SECONDS)
    # Some of Axolotl's validators read the base model's config; offline, the verdict does not depend on the network.
    env = {**os.environ, "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with tempfile.TemporaryFile("w+") as noise:
        command = [sys.executable, "-m", "recipekit.axolotl_schema"]
        pipe = subprocess.PIPE
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=noise, text=True, env=env, cwd=ROOT)
        with worker:
            try:
                answer, _ = worker.communicate(json.dumps(jobs, default=str), limit or None)
            except subprocess.TimeoutExpired:
                _end(worker)
                raise UserError(
                    f"Axolotl's schema was not loaded within {limit:g} s; run it again when the machine is less busy, "
                    f"or raise the limit: {LIMIT}={limit * 3:g} before the command (seconds; 0: no limit)"
                ) from None
        noise.seek(0)
        output = noise.read().strip()
    if worker.returncode:
        raise RuntimeError(f"Axolotl's schema could not be loaded: {output[-2000:]}")
    return [[Finding(tuple(key), message) for key, message in findings] for findings in json.loads(answer)]


def _end(worker: subprocess.Popen[str]) -> None:
    """End a worker and the children that it forked."""
    for process in [*psutil.Process(worker.pid).children(recursive=True), worker]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def unknown_keys(model: Any, data: dict[str, Any], key: Key = ()) -> Iterator[Finding]:
    """Find the keys that a pydantic model does not know, in nested models too, each with the closest known key."""
    if model.model_config.get("extra") == "allow":
        return
    known = _known_names(model)
    for name, value in data.items():
        if name in known:
            yield from _unknown_in_value(known[name], value, (*key, name))
        else:
            close = get_close_matches(str(name), known, n=3, cutoff=0.6)
            # By letters alone lora_rank is closer to local_rank than to lora_r.
            best = max(close, key=lambda other: len(commonprefix([str(name), other])), default=None)
            hint = f"did you mean '{best}'?" if best else "remove it"
            yield Finding((*key, name), f"unknown key, which Axolotl drops in silence; {hint}")


def _known_names(model: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        aliases = [field.alias, field.validation_alias, *getattr(field.validation_alias, "choices", [])]
        names |= {alias: field.annotation for alias in (name, *aliases) if isinstance(alias, str)}
    return names


def _unknown_in_value(annotation: Any, value: Any, key: Key) -> list[Finding]:
    if isinstance(value, list):
        return [finding for i, item in enumerate(value) for finding in _unknown_in_value(annotation, item, (*key, i))]
    models = _models_in(annotation)
    if not isinstance(value, dict) or not models:
        return []
    return min((list(unknown_keys(model, value, key)) for model in models), key=len)


def _models_in(annotation: Any) -> list[Any]:
    """The models that a value may be; none where it may be any mapping, for then every key is right."""
    if annotation is dict or get_origin(annotation) is dict:
        return []
    if hasattr(annotation, "model_fields"):
        return [annotation]
    parts = get_args(annotation)
    if any(part is dict or get_origin(part) is dict for part in parts):
        return []
    return [model for part in parts for model in _models_in(part)]


def _dataset_model(rl: str | None, dataset: dict[str, Any]) -> Any:
    """The model that validate_config makes of a data set."""
    from axolotl.utils.schemas import datasets

    if rl in ("dpo", "ipo", "simpo"):
        return datasets.DPODataset
    if rl == "kto":
        return datasets.KTODataset
    return datasets.SyntheticDataset if dataset.get("type") == "_synthetic" else datasets.SFTDataset


def _check_datasets(config: dict[str, Any], cfg: Any) -> Iterator[Finding]:
    """Judge each data set by its own model; a broken one is emptied in cfg, so that the rest can still be judged."""
    from pydantic import ValidationError

    for name in ("datasets", "test_datasets"):
        value = config.get(name)
        for i, dataset in enumerate(value if isinstance(value, list) else []):
            if not isinstance(dataset, dict):
                continue  # the schema of the whole config says so
            model = _dataset_model(config.get("rl"), dataset)
            yield from unknown_keys(model, dataset, (name, i))
            try:
                model(**dataset)
            except ValidationError as error:
                yield from _findings(error, dataset, (name, i))
                cfg[name][i] = model()


def _findings(error: Any, config: Any, prefix: Key = ()) -> Iterator[Finding]:
    """Turn a ValidationError into findings; pydantic's location also names union members, which are no keys."""
    seen = set()
    for problem in error.errors(include_url=False, include_context=False):
        key: Key = ()
        here = config
        for part in problem["loc"]:
            if isinstance(here, dict) and (
                part in here or (part == problem["loc"][-1] and problem["type"] == "missing")
            ):
                here, key = here.get(part), (*key, part)
            elif isinstance(here, list) and isinstance(part, int) and part < len(here):
                here, key = here[part], (*key, part)
        if (key, problem["type"]) in seen:
            continue
        seen.add((key, problem["type"]))
        message = problem["msg"].removeprefix("Value error, ")
        where = "" if key or not problem["loc"] else f"{'.'.join(map(str, problem['loc']))}: "
        found = f" (found {problem['input']!r})" if key and isinstance(problem["input"], str | int | float) else ""
        yield Finding((*prefix, *key), where + " ".join(message.split()) + found)


def _check_plugins(config: dict[str, Any]) -> Iterator[Finding]:
    """Import every plugin; Axolotl itself only prints that it could not."""
    from axolotl.integrations.base import load_plugin

    for i, name in enumerate(config.get("plugins") or []):
        try:
            load_plugin(name)
        except (ImportError, AttributeError, ValueError) as error:
            yield Finding(("plugins", i), f"cannot load the plugin '{name}': {error}; mend the name or install it")


def _judge(job: tuple[dict[str, Any], str]) -> list[Finding]:
    """Validate one config; runs in a forked child, which has Axolotl imported already."""
    import torch
    from axolotl.integrations.config import merge_input_args
    from axolotl.utils.config import prepare_plugins, validate_config
    from axolotl.utils.dict import DictDefault
    from pydantic import ValidationError

    config, profile = job
    findings = list(_check_plugins(config))
    if findings:
        return findings
    cfg = DictDefault(json.loads(json.dumps(config)))
    prepare_plugins(cfg)
    top = {key: value for key, value in config.items() if key not in ("datasets", "test_datasets")}
    findings = [*unknown_keys(merge_input_args()[1], top), *_check_datasets(config, cfg)]
    try:
        environment = {"torch_version": torch.__version__.split("+")[0]}
        validate_config(cfg, capabilities=CAPABILITIES[profile], env_capabilities=environment)
    except ValidationError as error:
        findings += _findings(error, config)
    except Exception as error:  # the validators raise whatever they like
        findings.append(Finding((), f"{type(error).__name__}: {' '.join(str(error).split())}"))
    return findings


def main() -> None:
    """Read jobs (JSON) from standard input and write the findings to standard output."""
    # Libraries print while they are imported; standard output is for the answer alone.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs = json.load(sys.stdin)
    gc.set_threshold(GC_THRESHOLD)
    import axolotl.integrations.base
    import axolotl.utils.config  # noqa: F401  (both once, before there are children)

    processes = min(len(jobs), os.cpu_count() or 1)
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        json.dump(pool.map(_judge, jobs, chunksize=1), answer)
    answer.close()


if __name__ == "__main__":
    main()
