"""A phase as a SageMaker training job: its definition, exactly as it is sent."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from recipekit import yamlfile
from recipekit.cloud_files import Upload, bytes_upload, code_archive, file_upload, manifest
from recipekit.errors import UserError
from recipekit.hub import TOKEN_NAMES, setting
from recipekit.prices import Machine
from recipekit.resolve import data_files, memory_overlay, resolve
from recipekit.runs import digest, relative
from recipekit.task import Task
from strip_lock import strip

FOLDER = "/opt/ml/recipes"  # where the code is unpacked in the container
START = (  # at most 256 characters
    f"mkdir -p {FOLDER} && tar xzf /opt/ml/input/data/code/code.tar.gz -C {FOLDER} "
    f'&& exec bash {FOLDER}/tools/sagemaker_entry.sh "$@"'
)
DISK_GB = 100
MAX_HOURS, WAIT_HOURS = 24, 24  # hours of training, and of waiting for spot capacity on top
SETTINGS = {
    "SAGEMAKER_ROLE_ARN": (r"arn:aws[\w-]*:iam::\d{12}:role/\S+", "arn:aws:iam::<12 digits>:role/<name>"),
    "SAGEMAKER_BUCKET": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[\w./-]+)?", "<bucket> or <bucket>/<folder>"),
    "AWS_REGION": (r"[a-z]{2}(?:-[a-z]+)+-\d", "a region such as us-west-2"),
    "SAGEMAKER_IMAGE": (
        r"\d{12}\.dkr\.ecr\.[\w-]+\.amazonaws\.com[\w.]*/\S+",
        "an image in ECR, as docs/cloud.md says",
    ),
}
SECRET = "SAGEMAKER_HF_SECRET_ARN"  # noqa: S105
SECRET_FORM = (r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:\S+", "the ARN of a secret in Secrets Manager")


@dataclass(frozen=True)
class Settings:
    """Where jobs run, from .env.

    Attributes:
        role: ARN of the role that jobs run as.
        bucket: Bucket of inputs and results.
        prefix: The folder in it.
        region: AWS region.
        image: ECR image of the container.
        hf_secret: ARN of the secret that holds the Hub's token; None: jobs have no token.
    """

    role: str
    bucket: str
    prefix: str
    region: str
    image: str
    hf_secret: str | None


@dataclass(frozen=True)
class Job:
    """A phase's job.

    Attributes:
        phase: The phase.
        definition: What create_training_job gets.
        uploads: What has to be in S3 before.
        identity: Of what the result depends on; the same recipe and data have the same.
        attempt: Which try it is, from 1.
    """

    phase: str
    definition: dict[str, Any]
    uploads: list[Upload]
    identity: str
    attempt: int = 1

    @property
    def name(self) -> str:
        """TrainingJobName."""
        return self.definition["TrainingJobName"]

    def again(self) -> "Job":
        """Define the next try: under a name of its own, going on from the same checkpoints."""
        first = self.name if self.attempt == 1 else self.name.rpartition("-")[0]
        definition = self.definition | {"TrainingJobName": f"{first}-{self.attempt + 1}"}
        return replace(self, definition=definition, attempt=self.attempt + 1)

    @property
    def artifact(self) -> str:
        """Where SageMaker puts what the job leaves in /opt/ml/model."""
        return f"{self.definition['OutputDataConfig']['S3OutputPath']}/{self.name}/output/model.tar.gz"


def read_settings(root: Path) -> Settings:
    """Read .env and the environment.

    Raises:
        UserError: Something is missing or has a wrong form; all that does.
    """
    values = {name: setting(root, name) for name in (*SETTINGS, SECRET)}
    problems = []
    for name, (form, words) in (SETTINGS | {SECRET: SECRET_FORM}).items():
        value = values[name]
        if value is None and name != SECRET:
            problems.append(f"{name}: not set, expected {words}; put it into .env, as .env.example shows")
        elif value is not None and not re.fullmatch(form, value):
            shown = "what does not look like one" if name == SECRET else f"'{value}'"  # it may be the token itself
            problems.append(f"{name}: found {shown}, expected {words}; mend it in .env")
    if problems:
        raise UserError(problems)
    bucket, _, folder = str(values["SAGEMAKER_BUCKET"]).partition("/")
    return Settings(
        role=str(values["SAGEMAKER_ROLE_ARN"]),
        bucket=bucket,
        prefix=folder.strip("/") or "japanese-finetune-recipes",
        region=str(values["AWS_REGION"]),
        image=str(values["SAGEMAKER_IMAGE"]),
        hf_secret=values[SECRET],
    )


def make_job(
    task: Task, phase: str, profile: str, machine: Machine, settings: Settings, spot: bool, before: Job | None
) -> Job:
    """Define a phase's job.

    Args:
        task: The task.
        phase: One of its phases.
        profile: "cpu" or "gpu".
        machine: What it runs on.
        settings: Where.
        spot: Whether on spare capacity.
        before: The job of the phase whose adapter it starts from; None: none.

    Raises:
        UserError: A data file is missing, or a base model that is not in the repository is to be trained.
    """
    config = as_written(task, phase, profile)
    data = [file_upload(path, settings.prefix) for path in _checked_files(task, phase, config)]
    listed = manifest(data, settings.bucket, settings.prefix)
    code = bytes_upload(code_archive(task, config), "code.tar.gz", settings.prefix)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    resolved = bytes_upload(text.encode(), f"{phase}.yml", settings.prefix)
    identity = digest([_ingredients(task, config), listed.sha256, settings.image, before and before.identity])
    definition = _definition(task, phase, profile, machine, settings, spot, identity)
    channels = {"code": code.key, "recipe": resolved.key, "train": listed.key}
    definition["InputDataConfig"] = [
        _channel(name, f"s3://{settings.bucket}/{key}", "ManifestFile" if name == "train" else "S3Prefix")
        for name, key in channels.items()
    ]
    if before:
        definition["InputDataConfig"].append(_channel("previous", before.artifact, "S3Prefix"))
    return Job(phase, definition, [*data, listed, code, resolved], identity)


def as_written(task: Task, phase: str, profile: str) -> dict[str, Any]:
    """Resolve a phase without what saved memory here, or in the job whose result is here: a job finds it by itself."""
    config, overlay = resolve(task, phase, profile), memory_overlay(task, phase, profile)
    if overlay.exists():
        config |= yamlfile.load(overlay)[0]["made_for"]
    return {key: value for key, value in config.items() if value is not None}


def _checked_files(task: Task, phase: str, config: dict[str, Any]) -> list[Path]:
    files = data_files(task, config)
    problems = [
        f"{relative(path)}: no such file; make it with: uv run tools/regenerate_segments.py {task.name}"
        for path in files
        if not path.is_file()
    ]
    base = config["base_model"]
    if Path(base).is_relative_to("outputs"):
        problems.append(f"{phase}: base_model {base}: jobs do not merge; train this phase on one machine")
    if problems:
        raise UserError(problems)
    return files


def _ingredients(task: Task, config: dict[str, Any]) -> dict[str, Any]:
    """Gather what the result depends on, but for data: not the code, for a changed comment must not train again."""
    lock, base = task.root / "uv.lock", task.root / config["base_model"]
    sharding = task.root / config.get("deepspeed", "-")
    return {
        "config": {key: value for key, value in config.items() if key != "dataset_prepared_path"},
        "lock": strip(lock.read_text(encoding="utf-8")) if lock.is_file() else None,
        "deepspeed": digest(sharding) if sharding.is_file() else None,
        "base": digest(base) if base.is_dir() else None,
    }


def phase_before(task: Task, phase: str, profile: str) -> str | None:
    """Name the phase whose adapter a phase starts from."""
    adapter = resolve(task, phase, profile).get("lora_model_dir")
    return Path(adapter).name if adapter else None


def token_stays_here(task: Task, settings: Settings) -> bool:
    """Tell whether there is a token here that jobs will not have."""
    return settings.hf_secret is None and setting(task.root, *TOKEN_NAMES) is not None


def _definition(
    task: Task, phase: str, profile: str, machine: Machine, settings: Settings, spot: bool, identity: str
) -> dict[str, Any]:
    name = re.sub(r"[^a-zA-Z0-9]+", "-", f"{task.slug}-{phase}")[:46].strip("-") + f"-{identity[:12]}"
    home = f"s3://{settings.bucket}/{settings.prefix}"
    seconds = round(task.spec.get("cloud", {}).get("max_hours", MAX_HOURS) * 3600)
    waiting = {"MaxWaitTimeInSeconds": seconds + WAIT_HOURS * 3600} if spot else {}
    return {
        "TrainingJobName": name,
        "RoleArn": settings.role,
        "AlgorithmSpecification": {
            "TrainingImage": settings.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["bash", "-c", START, "sagemaker_entry"],
            "ContainerArguments": [task.name, phase, profile],
        },
        "InputDataConfig": [],
        "OutputDataConfig": {"S3OutputPath": f"{home}/jobs"},
        "CheckpointConfig": {"S3Uri": f"{home}/checkpoints/{name}", "LocalPath": "/opt/ml/checkpoints"},
        "ResourceConfig": {"InstanceType": machine.name, "InstanceCount": 1, "VolumeSizeInGB": DISK_GB},
        "StoppingCondition": {"MaxRuntimeInSeconds": seconds, **waiting},
        "EnableManagedSpotTraining": spot,
        "Environment": _environment(settings),
        "Tags": [
            {"Key": key, "Value": value}
            for key, value in {"project": "japanese-finetune-recipes", "task": task.name, "phase": phase}.items()
        ],
    }


def _environment(settings: Settings) -> dict[str, str]:
    secret = {"HF_SECRET_ARN": settings.hf_secret} if settings.hf_secret else {}
    return secret | ({"AUTO_OOM": "1"} if os.environ.get("AUTO_OOM") == "1" else {})


def _channel(name: str, uri: str, kind: str) -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}
