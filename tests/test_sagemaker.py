"""SageMaker jobs against moto's server, which answers as AWS does, over HTTP."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request

import boto3
import pytest
import yaml
from moto.sagemaker import models as moto_models
from moto.sagemaker import responses as moto_responses
from moto.server import ThreadedMotoServer

import sagemaker as tool
import sagemaker_secret
from recipekit import ROOT
from recipekit.aws import Aws
from recipekit.cloud_files import code_archive
from recipekit.cloud_job import START
from recipekit.cloud_results import unpack
from recipekit.errors import UserError
from recipekit.resolve import resolve
from recipekit.task import load_task

CANARY, ACCESS, SECRET = (
    "hf_canaryCanaryCanary0123456789",
    "AKIACANARY0123456789",
    "canary/secret+key/0123456789abcdefghijkl",
)
ENV = {
    "SAGEMAKER_ROLE_ARN": "arn:aws:iam::123456789012:role/trainer",
    "SAGEMAKER_BUCKET": "recipes-bucket/team",
    "AWS_REGION": "us-west-2",
    "SAGEMAKER_IMAGE": "123456789012.dkr.ecr.us-west-2.amazonaws.com/recipes:1",
}


@pytest.fixture(scope="module")
def server():
    """Moto's server; yields its address."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """An environment without anything of AWS but the sign-in of a test."""
    for name in (*os.environ, *ENV):
        if name.startswith(("AWS_", "SAGEMAKER_", "HF_")) and name != "HF_HOME":
            monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def aws(server, settings, monkeypatch):
    """An empty AWS with the bucket; yields a client of S3."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")).read()
    s3 = boto3.client("s3", region_name="us-west-2")
    s3.create_bucket(Bucket="recipes-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    return s3


@pytest.fixture
def root(mini, settings):
    """The mini task with two chained phases, data, prices, code and an .env with a token."""
    shutil.copy(ROOT / "recipes" / "prices.yml", mini / "recipes")
    shutil.copytree(ROOT / "tools", mini / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    data = [{"path": f"data/train/{name}.jsonl", "ds_type": "json"} for name in ("pos", "neg")]
    for number in (1, 2):
        config = {"base_model": "owner/base", "output_dir": f"outputs/mini/phase{number}", "max_steps": 10}
        config |= {"datasets": data[:1], "test_datasets": data[1:]}
        config |= {"lora_model_dir": "outputs/mini/phase1"} if number == 2 else {}
        (mini / "recipes" / "mini" / f"phase{number}.yml").write_text(yaml.safe_dump(config))
    (mini / "data" / "train").mkdir()
    for name in ("pos", "neg"):
        (mini / "data" / "train" / f"{name}.jsonl").write_text(f'{{"id": "{name}"}}\n')
    write_env(mini, ENV | {"HF_AUTH_TOKEN": CANARY})
    return mini


def write_env(root, values):
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))


@pytest.fixture
def sent(monkeypatch):
    """The bodies of create_training_job, as they came over HTTP."""
    bodies = []
    create = moto_responses.SageMakerResponse.create_training_job

    def record(self):
        bodies.append(json.loads(self.body))
        return create(self)

    monkeypatch.setattr(moto_responses.SageMakerResponse, "create_training_job", record)
    return bodies


@pytest.fixture
def ending(monkeypatch):
    """Sets how jobs end from now on: ending("Failed", "reason")."""
    state = {}
    init = moto_models.FakeTrainingJob.__init__

    def end(self, *args, **kwargs):
        init(self, *args, **kwargs)
        if state:
            self.training_job_status = self.secondary_status = state["status"]
            self.failure_reason = state["reason"]

    monkeypatch.setattr(moto_models.FakeTrainingJob, "__init__", end)
    monkeypatch.setattr(tool, "POLL_SECONDS", 0)

    def set_ending(status, reason=None):
        state.update(status=status, reason=reason)

    return set_ending


def run(root, monkeypatch, **options):
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, root))
    switches = dict.fromkeys(("wait", "fetch", "dry_run"), False)
    defaults = {"profile": "gpu", "machine": "ml.g5.xlarge", "phase": None, "spot": None} | switches
    tool.sagemaker("mini", **(defaults | options))


def failing(root, monkeypatch, **options):
    with pytest.raises(UserError) as caught:
        run(root, monkeypatch, **options)
    text = "\n".join(caught.value.problems)
    assert not any(secret in text for secret in (CANARY, ACCESS, SECRET))
    return text


def objects(s3):
    listed = s3.list_objects_v2(Bucket="recipes-bucket").get("Contents", [])
    return {one["Key"]: one["LastModified"] for one in listed}


def channels(definition):
    return {one["ChannelName"]: one["DataSource"]["S3DataSource"] for one in definition["InputDataConfig"]}


def test_dry_run_asks_nobody(root, settings, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers there
    run(root, monkeypatch, dry_run=True)
    assert len(json.loads(capsys.readouterr().out)) == 2
    run(root, monkeypatch, dry_run=True, phase="phase2")
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_what_is_sent_is_what_the_dry_run_printed(root, aws, sent, monkeypatch, capsys):
    run(root, monkeypatch, dry_run=True)
    printed = json.loads(capsys.readouterr().out)
    run(root, monkeypatch, wait=True)
    assert [job["TrainingJobName"][:11] for job in sent] == ["mini-phase1", "mini-phase2"]
    assert sent == printed


def test_a_job_says_what_the_recipe_and_env_say(root, aws, sent, monkeypatch):
    run(root, monkeypatch)
    (job,) = sent
    assert job["RoleArn"] == ENV["SAGEMAKER_ROLE_ARN"]
    assert job["AlgorithmSpecification"]["TrainingImage"] == ENV["SAGEMAKER_IMAGE"]
    assert job["AlgorithmSpecification"]["ContainerArguments"] == ["mini", "phase1", "gpu"]
    assert len(START) <= 256  # SageMaker's limit
    assert job["ResourceConfig"] == {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 100}
    assert job["EnableManagedSpotTraining"] is False and job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    checkpoints = {"S3Uri": f"s3://recipes-bucket/team/checkpoints/{job['TrainingJobName']}"}
    assert job["CheckpointConfig"] == checkpoints | {"LocalPath": "/opt/ml/checkpoints"}
    assert job["Tags"][1:] == [{"Key": "task", "Value": "mini"}, {"Key": "phase", "Value": "phase1"}]


def test_the_manifest_lists_the_data_by_their_content(root, aws, sent, monkeypatch):
    run(root, monkeypatch)
    source = channels(sent[0])["train"]
    assert source["S3DataType"] == "ManifestFile"
    listed = json.loads(aws.get_object(Bucket="recipes-bucket", Key=source["S3Uri"].split("/", 3)[3])["Body"].read())
    assert listed[0] == {"prefix": "s3://recipes-bucket/team/files/"}
    assert {name.split("/")[1] for name in listed[1:]} == {"pos.jsonl", "neg.jsonl"}
    for name in listed[1:]:
        content = aws.get_object(Bucket="recipes-bucket", Key=f"team/files/{name}")["Body"].read()
        assert content == (root / "data" / "train" / name.split("/")[1]).read_bytes()


def test_spot_waits_longer_than_it_trains(root, aws, sent, monkeypatch):
    path = root / "recipes" / "mini" / "task.yml"
    path.write_text(path.read_text(encoding="utf-8") + "cloud: {machine: ml.g5.xlarge, spot: true, max_hours: 2}\n")
    run(root, monkeypatch, machine=None)
    assert sent[0]["EnableManagedSpotTraining"] is True
    assert sent[0]["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 7200 + 86400}
    assert sent[0]["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"


def test_phase_2_starts_from_what_phase_1_left(root, aws, sent, monkeypatch, capsys):
    run(root, monkeypatch)
    assert len(sent) == 1 and "once it is done, the same command goes on: uv run" in capsys.readouterr().err
    assert "previous" not in channels(sent[0])
    run(root, monkeypatch)  # moto's jobs are done at once
    assert "phase1: done" in capsys.readouterr().err
    left = boto3.client("sagemaker", region_name="us-west-2").describe_training_job(
        TrainingJobName=sent[0]["TrainingJobName"]
    )["ModelArtifacts"]["S3ModelArtifacts"]
    assert channels(sent[1])["previous"]["S3Uri"] == left
    run(root, monkeypatch)
    assert len(sent) == 2 and "all done" in capsys.readouterr().err


def test_only_what_changed_is_sent(root, aws, sent, monkeypatch, capsys):
    run(root, monkeypatch)
    first = objects(aws)
    assert len(first) == 5  # two data files, manifest, code, recipe
    (root / "data" / "train" / "pos.jsonl").write_text('{"id": "other"}\n')
    capsys.readouterr()
    run(root, monkeypatch)
    second = objects(aws)
    assert {key.rpartition("/")[2] for key in second.keys() - first.keys()} == {
        "pos.jsonl",
        "manifest.json",
        "phase1.yml",
    }
    assert all(second[key] == first[key] for key in first)
    assert "3 of 5 files sent" in capsys.readouterr().err
    assert sent[0]["TrainingJobName"] != sent[1]["TrainingJobName"]


def test_a_second_submit_sends_nothing(root, aws, sent, ending, monkeypatch, capsys):
    ending("InProgress")
    run(root, monkeypatch)
    before = objects(aws)
    capsys.readouterr()
    run(root, monkeypatch)
    assert len(sent) == 1 and objects(aws) == before
    assert "runs as job" in capsys.readouterr().err


def test_a_changed_tool_does_not_train_again(root, aws, sent, monkeypatch):
    run(root, monkeypatch)
    (root / "tools" / "summary.py").write_text("# changed\n")
    run(root, monkeypatch)
    assert [job["TrainingJobName"][:11] for job in sent] == ["mini-phase1", "mini-phase2"]
    assert channels(sent[0])["code"] != channels(sent[1])["code"]


def test_another_phase_1_makes_another_phase_2(root, aws, sent, monkeypatch):
    run(root, monkeypatch, wait=True)
    path = root / "recipes" / "mini" / "phase1.yml"
    path.write_text(path.read_text() + "learning_rate: 1.0e-3\n")
    run(root, monkeypatch, wait=True)
    assert len({job["TrainingJobName"] for job in sent}) == 4


def test_a_failed_job_is_explained_and_tried_again_from_its_checkpoints(root, aws, sent, ending, monkeypatch, capsys):
    ending("Failed", f"AlgorithmError: CUDA out of memory {SECRET}, exit code: 1")
    text = failing(root, monkeypatch, wait=True)
    assert "mini-phase1-" in text and "failed: AlgorithmError: CUDA out of memory ***" in text
    assert "halve micro_batch_size" in text and "aws logs tail /aws/sagemaker/TrainingJobs" in text
    for _ in range(2):
        failing(root, monkeypatch, wait=True)
    ending("Completed")
    run(root, monkeypatch, wait=True)
    first = sent[0]["TrainingJobName"]
    assert [job["TrainingJobName"] for job in sent[:4]] == [first, f"{first}-2", f"{first}-3", f"{first}-4"]
    assert len({json.dumps(job["CheckpointConfig"]) for job in sent[:4]}) == 1
    assert channels(sent[4])["previous"]["S3Uri"].endswith(f"/jobs/{first}-4/output/model.tar.gz")
    assert "ended without a result" in capsys.readouterr().err


def test_a_phase_alone_needs_the_one_before(root, aws, sent, monkeypatch):
    assert "phase1 comes before it and is not done" in failing(root, monkeypatch, phase="phase2")
    run(root, monkeypatch, phase="phase1")
    run(root, monkeypatch, phase="phase2")
    assert len(sent) == 2
    assert "they are phase1, phase2" in failing(root, monkeypatch, phase="phase3")


def test_no_secret_leaves_this_machine(root, aws, sent, monkeypatch, capsys):
    run(root, monkeypatch, wait=True)
    run(root, monkeypatch, dry_run=True)
    printed = "".join(capsys.readouterr())
    stored = b""
    for key in objects(aws):
        content = aws.get_object(Bucket="recipes-bucket", Key=key)["Body"].read()
        if key.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                assert "tools/sagemaker_entry.sh" in archive.getnames()
                content = (
                    b"".join(archive.extractfile(one).read() for one in archive) + str(archive.getnames()).encode()
                )
        stored += content
    for secret in (CANARY, ACCESS, SECRET):
        assert secret not in json.dumps(sent) + printed and secret.encode() not in stored
    assert "the Hub's token stays here" in printed


def test_a_recipe_with_the_token_in_it_is_refused(root, aws, sent, monkeypatch):
    (root / "recipes" / "mini" / "notes.md").write_text(f"token: {CANARY}\n")
    assert "recipes/mini/notes.md: holds the Hub's token" in failing(root, monkeypatch)
    assert not sent and not objects(aws)


def test_the_token_reaches_a_job_through_a_secret(root, aws, sent, monkeypatch):
    secrets = boto3.client("secretsmanager", region_name="us-west-2")
    arn = secrets.create_secret(Name="hub", SecretString=json.dumps({"HF_TOKEN": CANARY}))["ARN"]
    write_env(root, ENV | {"HF_AUTH_TOKEN": CANARY, "SAGEMAKER_HF_SECRET_ARN": arn})
    run(root, monkeypatch)
    assert sent[0]["Environment"] == {"HF_SECRET_ARN": arn}
    assert sagemaker_secret.read(Aws("us-west-2"), arn) == CANARY
    with pytest.raises(UserError, match="the secret of HF_SECRET_ARN: .*Secrets Manager can't find"):
        sagemaker_secret.read(Aws("us-west-2"), f"{arn}x")


def test_the_code_is_the_same_bytes_each_time_and_names_no_mirror(root, monkeypatch):
    task = load_task("mini", root)
    (root / "uv.lock").write_text(
        'version = 1\n\n[[package]]\nname = "a"\nsource = { registry = "https://me:pass@mirror/simple" }\n'
    )
    config = resolve(task, "phase1", "gpu")
    first = code_archive(task, config)
    os.utime(root / "tools" / "train.py", (0, 0))
    monkeypatch.setattr("gzip.time.time", lambda: 1.0)
    assert code_archive(task, config) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert b"mirror" not in archive.extractfile("uv.lock").read()
        assert not [name for name in archive.getnames() if name.startswith(("data", ".env"))]


def test_settings_that_are_missing_or_wrong_are_named_together(root, monkeypatch):
    write_env(root, {"SAGEMAKER_ROLE_ARN": "trainer", "SAGEMAKER_BUCKET": "s3://x", "SAGEMAKER_HF_SECRET_ARN": CANARY})
    text = failing(root, monkeypatch)
    for name in (*ENV, "SAGEMAKER_HF_SECRET_ARN"):
        assert f"{name}: " in text
    assert "AWS_REGION: not set" in text and "found 'trainer', expected arn:aws:iam" in text


def test_data_that_are_not_made_are_named(root, monkeypatch):
    (root / "data" / "train" / "pos.jsonl").unlink()
    assert "data/train/pos.jsonl: no such file; make it with" in failing(root, monkeypatch)


def test_a_machine_of_another_place_is_refused(root, monkeypatch):
    assert "a100-80gb: not a machine of SageMaker" in failing(root, monkeypatch, machine="a100-80gb")


def test_without_credentials_it_says_how_to_sign_in(root, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials found; sign in anew: aws configure" in failing(root, monkeypatch)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    assert "Partial credentials" in failing(root, monkeypatch)


def test_a_missing_bucket_is_explained(root, aws, monkeypatch):
    write_env(root, ENV | {"SAGEMAKER_BUCKET": "another-bucket"})
    text = failing(root, monkeypatch)
    assert text.startswith("bucket another-bucket: Not Found (404)") and "aws s3 mb" in text


def test_an_aws_that_is_away_is_explained(root, settings, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:password@127.0.0.1:9")
    text = failing(root, monkeypatch)
    assert "AWS cannot be reached" in text and "password" not in text


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        (
            "AccessDeniedException",
            "User is not authorized to perform: sagemaker:CreateTrainingJob",
            "AmazonS3FullAccess",
        ),
        (
            "ValidationException",
            "Could not assume role arn:aws:iam::1:role/x.",
            "sagemaker.amazonaws.com as a principal",
        ),
        ("ResourceLimitExceeded", "The account-level service limit 'ml.g5.xlarge' is 0", "Service Quotas"),
        ("ExpiredTokenException", f"The security token {SECRET} is expired", "aws configure"),
        ("UnrecognizedClientException", "The security token is invalid", "aws configure"),
    ],
)
def test_what_aws_refuses_is_explained(root, aws, monkeypatch, code, message, remedy):
    def refuse(self):
        return 400, {"status": 400}, json.dumps({"__type": code, "message": message})

    monkeypatch.setattr(moto_responses.SageMakerResponse, "create_training_job", refuse)
    text = failing(root, monkeypatch)
    assert code in text and remedy in text and message.split()[0] in text


def artifact(root, value, recorded, overlay=None):
    """Pack what the entry script packs: outputs.tar in model.tar.gz, with a time to the nanosecond."""
    home = root / "job"
    shutil.rmtree(home, ignore_errors=True)
    weights = home / "outputs" / "mini" / "phase1" / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(value)
    os.utime(weights, ns=(0, 1_700_000_000_123_456_789))
    record = {"products": {"outputs/mini/phase1/adapter_model.safetensors": hashlib.sha256(recorded).hexdigest()}}
    if overlay:
        (home / "outputs" / "mini" / "phase1.gpu.oom.yml").write_text(overlay)
    (home / "outputs" / "mini" / "state").mkdir()
    (home / "outputs" / "mini" / "state" / "phase1.json").write_text(json.dumps(record))
    subprocess.run(["tar", "--format=posix", "-cf", "outputs.tar", "outputs"], cwd=home, check=True)
    subprocess.run(["tar", "czf", root / "model.tar.gz", "outputs.tar"], cwd=home, check=True)


def test_results_come_home_whole_or_not_at_all(root, aws, sent, monkeypatch):
    run(root, monkeypatch)
    artifact(root, b"weights", b"weights")
    key = f"team/jobs/{sent[0]['TrainingJobName']}/output/model.tar.gz"
    aws.upload_file(str(root / "model.tar.gz"), "recipes-bucket", key)
    run(root, monkeypatch, fetch=True, phase="phase1")
    weights = root / "outputs" / "mini" / "phase1" / "adapter_model.safetensors"
    assert weights.read_bytes() == b"weights" and weights.stat().st_mtime_ns == 1_700_000_000_123_456_789
    artifact(root, b"others", b"weights")
    with pytest.raises(UserError, match="adapter_model.safetensors is not what its record says"):
        unpack(load_task("mini", root), "phase1", "gpu", root / "model.tar.gz")
    (root / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(load_task("mini", root), "phase1", "gpu", root / "model.tar.gz")
    assert weights.read_bytes() == b"weights"
    assert not list((root / "outputs" / "mini").glob(".fetch*"))
    assert "phase2: job mini-phase2" in failing(root, monkeypatch, fetch=True)


@pytest.mark.fault(number=56)
def test_jobs_may_answer_running_out_of_memory_and_what_they_changed_comes_home(root, aws, sent, monkeypatch):
    run(root, monkeypatch)
    monkeypatch.setenv("AUTO_OOM", "1")
    run(root, monkeypatch)  # phase 1 is done: the answer to running out of memory makes no other job
    assert [job["Environment"] for job in sent] == [{}, {"AUTO_OOM": "1"}] and "-phase2-" in sent[1]["TrainingJobName"]

    overlay = "made_for: {max_steps: 10, micro_batch_size: null}\nlaid_over: {micro_batch_size: 1, max_steps: 20}\n"
    artifact(root, b"weights", b"weights", overlay)
    for job in sent:
        key = f"team/jobs/{job['TrainingJobName']}/output/model.tar.gz"
        aws.upload_file(str(root / "model.tar.gz"), "recipes-bucket", key)
    run(root, monkeypatch, fetch=True, phase="phase1")
    home = root / "outputs" / "mini" / "phase1.gpu.oom.yml"
    assert home.read_text() == overlay
    assert resolve(load_task("mini", root), "phase1", "gpu")["micro_batch_size"] == 1
    run(root, monkeypatch, fetch=True, phase="phase1")  # it still names the same jobs
    run(root, monkeypatch)
    assert len(sent) == 2
    artifact(root, b"weights", b"weights")
    unpack(load_task("mini", root), "phase1", "gpu", root / "model.tar.gz")
    assert not home.exists(), "the result was made without it"


def test_the_tool_does_not_stand_in_the_way_of_the_sagemaker_package(tmp_path):
    (tmp_path / "sagemaker").mkdir()
    (tmp_path / "sagemaker" / "__init__.py").touch()
    code = (
        "import importlib.util, runpy; runpy.run_path('tools/sagemaker.py'); "
        "print(importlib.util.find_spec('sagemaker').origin)"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.stdout.strip() == str(tmp_path / "sagemaker" / "__init__.py"), done.stderr


def test_env_example_names_every_setting():
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert all(f"\n{name}=" in text for name in (*ENV, "SAGEMAKER_HF_SECRET_ARN"))


def test_a_phase_that_starts_from_a_merged_model_is_refused():
    rest = "dpo: starts from the merged model of phase3, .*; jobs train phase1, phase2, phase3; .* --from merge_phase3"
    with pytest.raises(UserError, match=rest):
        tool.sagemaker("companion", "gpu", phase="dpo")
    assert tool.trainable(load_task("hawks"), "gpu") == (["phase1", "phase2"], "")


@pytest.mark.parametrize("phase", [None, "phase1"])
def test_the_phases_before_a_merged_model_are_trained_by_jobs(root, settings, sent, monkeypatch, capsys, phase):
    path = root / "recipes" / "mini" / "phase2.yml"
    config = yaml.safe_load(path.read_text()) | {"base_model": "outputs/mini/phase1/merged"}
    del config["lora_model_dir"]
    path.write_text(yaml.safe_dump(config))
    run(root, monkeypatch, dry_run=True, phase=phase)
    printed = capsys.readouterr()
    assert [job["TrainingJobName"].split("-")[1] for job in json.loads(printed.out)] == ["phase1"]
    assert "PROFILE=gpu uv run bash train_all.sh mini --from merge_phase1" in " ".join(printed.err.split())
    assert "phase2: starts from the merged model of phase1" in failing(root, monkeypatch, phase="phase2")
