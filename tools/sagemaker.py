"""Train a task's phases as SageMaker jobs, each going on from the adapter of the one before.

    uv run tools/sagemaker.py hawks --dry-run    # the exact job definitions; touches nothing
    uv run tools/sagemaker.py hawks              # submits the next phase that is not done
    uv run tools/sagemaker.py hawks --wait       # all phases, one after the other
    uv run tools/sagemaker.py hawks --fetch      # brings what is done into outputs/hawks/
    AUTO_OOM=1 uv run tools/sagemaker.py hawks   # jobs that run out of memory go on with less

Where (role, bucket, region, image) stands in .env; credentials are those of `aws configure` or your environment. A job
is named by its recipe and data: what is done is not trained again, and what failed goes on from its last checkpoint.
docs/cloud.md has it step by step.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit.aws import Aws, failure_remedy
from recipekit.cloud_files import send
from recipekit.cloud_job import (
    MAX_HOURS,
    Job,
    Settings,
    make_job,
    phase_before,
    read_settings,
    token_stays_here,
)
from recipekit.cloud_results import unpack
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.prices import Machine, machine_for
from recipekit.resolve import merged_phase, resolve
from recipekit.runs import relative
from recipekit.task import Task, load_task

POLL_SECONDS = 30
RUNNING = ("InProgress", "Stopping")


def sagemaker(
    task: Annotated[str, typer.Argument(help="A folder under recipes/")],
    profile: Annotated[str, typer.Option(help="cpu or gpu")] = "gpu",
    machine: Annotated[str | None, typer.Option(help="An ml.* machine of recipes/prices.yml")] = None,
    phase: Annotated[str | None, typer.Option(help="This phase alone")] = None,
    spot: Annotated[bool | None, typer.Option(help="Spare capacity: cheaper, and may be taken away")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for each job, then submit the next")] = False,
    fetch: Annotated[bool, typer.Option("--fetch", help="Bring finished phases into outputs/; submit nothing")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job definitions as JSON")] = False,
) -> None:
    """Train a task's phases as SageMaker training jobs."""
    recipe = load_task(task)
    if phase is not None and phase not in recipe.phases:
        raise UserError(f"--phase {phase}: no such phase in {task}; they are {', '.join(recipe.phases)}")
    phases, rest = trainable(recipe, profile)
    if phase is not None and phase not in phases:
        raise UserError(rest)
    settings, chosen = read_settings(recipe.root), sagemaker_machine(recipe, profile, machine)
    spot = recipe.spec.get("cloud", {}).get("spot", False) if spot is None else spot
    phases = phases[: phases.index(phase) + 1] if phase else phases
    plan = Plan(recipe, phases, profile, chosen, settings, spot)
    if rest:
        show(f"warning: {rest}", style="yellow")
    if dry_run:
        jobs = plan.first_tries()
        print(json.dumps([job.definition for job in jobs if phase in (None, job.phase)], indent=2, ensure_ascii=False))
        return
    aws = Aws(settings.region)
    if fetch:
        fetch_all(plan, aws, phase)
    else:
        submit(plan, aws, phase, wait)


def trainable(task: Task, profile: str) -> tuple[list[str], str]:
    """List the phases that jobs can train: those before one that starts from a merged model.

    Returns:
        The phases, and what is said of the others; empty where there are none.
    """
    for number, phase in enumerate(task.phases):
        if before := merged_phase(task, resolve(task, phase, profile)["base_model"]):
            what = f"{phase}: starts from the merged model of {before}, which no job makes"
            here = f"PROFILE={profile} uv run bash train_all.sh {task.name} --from merge_{before}"
            up_to = f"jobs train {', '.join(task.phases[:number])}"
            return task.phases[:number], f"{what}; {up_to}; after --fetch, go on here: {here}"
    return task.phases, ""


def sagemaker_machine(task: Task, profile: str, name: str | None) -> Machine:
    """Choose the machine.

    Raises:
        UserError: It is not one of SageMaker's.
    """
    machine = machine_for(task, profile, name)
    if not machine.name.startswith("ml."):
        raise UserError(
            f"{machine.name}: not a machine of SageMaker; name one of recipes/prices.yml that begins with ml."
        )
    return machine


class Plan:
    """The jobs of a task's phases, in order."""

    def __init__(
        self, task: Task, phases: list[str], profile: str, machine: Machine, settings: Settings, spot: bool
    ) -> None:
        self.task, self.phases = task, phases
        self.profile, self.machine, self.settings, self.spot = profile, machine, settings, spot

    def job(self, phase: str, done: dict[str, Job]) -> Job:
        """Define a phase's job, going on from that of the phase before."""
        earlier = phase_before(self.task, phase, self.profile)
        before = done[earlier] if earlier else None
        return make_job(self.task, phase, self.profile, self.machine, self.settings, self.spot, before)

    def first_tries(self) -> list[Job]:
        """Define all jobs, as they are sent where none of them fails."""
        jobs: dict[str, Job] = {}
        for phase in self.phases:
            jobs[phase] = self.job(phase, jobs)
        return list(jobs.values())

    def limit(self) -> str:
        """Say what a job may cost at most."""
        hours = self.task.spec.get("cloud", {}).get("max_hours", MAX_HOURS)
        price = self.machine.spot_per_hour if self.spot else None
        price = self.machine.usd_per_hour if price is None else price
        return f"{self.machine.name}{', spot' if self.spot else ''}, at most {hours:g} h, about ${hours * price:,.2f}"


def latest(aws: Aws, job: Job) -> tuple[Job, dict[str, Any] | None]:
    """Find the last try of a job; the first, and None, where it was never submitted."""
    description = describe(aws, job.name)
    while description is not None and (following := describe(aws, job.again().name)) is not None:
        job, description = job.again(), following
    return job, description


def describe(aws: Aws, name: str) -> dict[str, Any] | None:
    """Ask for a job; None: there is no such job."""
    from botocore.exceptions import ClientError

    with aws.explained(f"job {name}"):
        try:
            return aws.sagemaker.describe_training_job(TrainingJobName=name)
        except ClientError as error:
            text = error.response["Error"]["Message"].lower()
            if "not found" in text or "could not find" in text:
                return None
            raise


def submit(plan: Plan, aws: Aws, only: str | None, wait: bool) -> None:
    """Submit the phases that are not done, in order; without `wait`, the first of them.

    Raises:
        UserError: AWS refuses something, a job failed, or `only` goes on from a phase that is not done.
    """
    done: dict[str, Job] = {}
    command = f"uv run tools/sagemaker.py {plan.task.name} --profile {plan.profile} --machine {plan.machine.name}"
    command += " --spot" if plan.spot else ""
    for phase in plan.phases:
        job, description = latest(aws, plan.job(phase, done))
        status = description["TrainingJobStatus"] if description else None
        if only not in (None, phase) and status != "Completed":
            raise UserError(f"--phase {only}: {phase} comes before it and is not done; leave --phase away")
        if status in (None, "Failed", "Stopped"):
            job = start(plan, aws, job, description)
        elif status == "Completed":
            show(f"{phase}: done (job {job.name})")
        if status != "Completed":
            if not wait:
                show(f"{phase}: runs as job {job.name}; once it is done, the same command goes on: {command}")
                return
            watch(plan, aws, job)
        done[phase] = job
    show(f"all done; bring it here with: {command} --fetch")


def start(plan: Plan, aws: Aws, job: Job, last: dict[str, Any] | None) -> Job:
    """Send what a job needs and create it, under a new name where an earlier try ended without a result."""
    if last is not None:
        reason = last.get("FailureReason", "it was stopped")
        show(f"{job.phase}: job {job.name} ended without a result: {aws.redacted(reason)}; trying again", "yellow")
        job = job.again()
    if token_stays_here(plan.task, plan.settings):
        show("the Hub's token stays here; a gated base needs SAGEMAKER_HF_SECRET_ARN in .env, see docs/cloud.md")
    count, size = send(aws, plan.settings.bucket, job.uploads)
    show(f"{job.phase}: {count} of {len(job.uploads)} files sent ({size / 1e6:,.1f} MB); the others are there")
    with aws.explained(f"job {job.name}"):
        aws.sagemaker.create_training_job(**job.definition)
    show(f"{job.phase}: submitted as {job.name}: {plan.limit()}")
    return job


def watch(plan: Plan, aws: Aws, job: Job) -> None:
    """Wait for a job to end, showing each change of its state.

    Raises:
        UserError: It failed or was stopped.
    """
    shown = ""
    while True:
        found = describe(aws, job.name) or {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}
        state = found.get("SecondaryStatus", "")
        if state != shown:
            show(f"{job.phase}: {state}")
            shown = state
        if found["TrainingJobStatus"] not in RUNNING:
            break
        time.sleep(POLL_SECONDS)
    if found["TrainingJobStatus"] != "Completed":
        reason = aws.redacted(found.get("FailureReason") or found["SecondaryStatus"])
        ended = f"{job.phase}: job {job.name} {found['TrainingJobStatus'].lower()}"
        log = f"aws logs tail /aws/sagemaker/TrainingJobs --log-stream-name-prefix {job.name}"
        raise UserError(f"{ended}: {reason}; {failure_remedy(reason)}; its log: {log} --region {plan.settings.region}")
    if seconds := found.get("BillableTimeInSeconds"):
        show(f"{job.phase}: {seconds / 3600:.2f} h billed, about ${seconds / 3600 * plan.machine.usd_per_hour:,.2f}")


def fetch_all(plan: Plan, aws: Aws, only: str | None) -> None:
    """Bring the results of finished jobs into outputs/.

    Raises:
        UserError: A phase is not done, or its result is not whole.
    """
    done: dict[str, Job] = {}
    for phase in plan.phases:
        job, description = latest(aws, plan.job(phase, done))
        status = description["TrainingJobStatus"] if description else "not submitted"
        if status != "Completed":
            raise UserError(
                f"{phase}: job {job.name} is not done ({status}); uv run tools/sagemaker.py {plan.task.name}"
            )
        done[phase] = job
        if only in (None, phase):
            with tempfile.TemporaryDirectory() as folder:
                artifact = Path(folder) / "model.tar.gz"
                bucket, _, key = job.artifact.removeprefix("s3://").partition("/")
                with aws.explained(f"fetching {job.artifact}"), artifact.open("wb") as stream:
                    aws.s3.download_fileobj(bucket, key, stream)
                show(
                    f"{phase}: {relative(unpack(plan.task, phase, plan.profile, artifact))}, as job {job.name} left it"
                )


if __name__ == "__main__":
    main(sagemaker)
