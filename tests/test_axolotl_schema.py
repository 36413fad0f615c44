import subprocess

import psutil
import pytest
import yaml
from pydantic import AliasChoices, BaseModel, Field, ValidationError

import processes
from recipekit import ROOT, axolotl_schema, traps, yamlfile
from recipekit.axolotl_schema import Finding, unknown_keys
from recipekit.errors import UserError
from recipekit.resolve import resolve
from recipekit.task import load_task

NAMES = sorted(path.parent.name for path in (ROOT / "recipes").glob("*/task.yml"))
VARIANTS = [f"{name}:{variant}" for name in NAMES for variant in load_task(name).spec.get("variants", {})]
TASKS = [name for name in NAMES if "phases" in load_task(name).spec] + VARIANTS


class Prompter(BaseModel):
    field_input: str | None = None


class Sft(BaseModel):
    path: str | None = None
    type: str | Prompter | None = None


class Dpo(BaseModel):
    path: str | None = None
    field_chosen: str | None = None


class Schema(BaseModel):
    lora_r: int | None = None
    local_rank: int | None = None
    learning_rate: float = 0.1
    kwargs: dict[str, int] | None = None
    datasets: list[Sft | Dpo] | None = None
    overrides: dict | None = Field(default=None, validation_alias=AliasChoices("model_config", "model_overrides"))


def unknown(data):
    return [(finding.key, finding.message.split("; ")[1]) for finding in unknown_keys(Schema, data)]


@pytest.mark.trap(number=5)
def test_an_unknown_key_is_named_with_the_closest_known_one():
    assert unknown({"lora_rank": 8}) == [(("lora_rank",), "did you mean 'lora_r'?")]
    assert unknown({"learing_rate": 8}) == [(("learing_rate",), "did you mean 'learning_rate'?")]
    assert unknown({"zzz": 8}) == [(("zzz",), "remove it")]


def test_known_keys_aliases_and_free_mappings_pass():
    assert not unknown({"lora_r": 8, "model_overrides": {"any": 1}, "model_config": {}, "kwargs": {"any": 1}})


def test_nested_models_are_looked_into():
    assert unknown({"datasets": [{"path": "a", "type": {"field_input": "x"}}, {"field_chosen": "b"}]}) == []
    found = unknown({"datasets": [{"path": "a"}, {"path": "b", "weight": 2}, {"type": {"field_inputs": "x"}}]})
    assert [key for key, _ in found] == [("datasets", 1, "weight"), ("datasets", 2, "type", "field_inputs")]


def test_a_validation_error_becomes_key_and_value_without_the_names_of_union_members():
    config = {"lora_r": "many", "datasets": [{"path": 3}]}
    with pytest.raises(ValidationError) as error:
        Schema(**config)
    found = list(axolotl_schema._findings(error.value, config))
    assert [finding.key for finding in found] == [("lora_r",), ("datasets", 0, "path")]
    assert "'many'" in found[0].message


def test_a_worker_that_dies_is_no_verdict(monkeypatch):
    monkeypatch.setattr(axolotl_schema.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="could not be loaded"):
        axolotl_schema.validate([({}, "cpu")])


@pytest.mark.fault(number=55)
def test_a_worker_that_takes_too_long_is_ended_and_named(monkeypatch):
    monkeypatch.setenv("CHECK_SCHEMA_SECONDS", "0.5")
    with pytest.raises(UserError, match=r"within 0.5 s; .* raise the limit: CHECK_SCHEMA_SECONDS=1.5 before"):
        axolotl_schema.validate([({}, "gpu")])
    assert not [one for one in psutil.Process().children() if "recipekit.axolotl_schema" in one.cmdline()]
    monkeypatch.setenv("CHECK_SCHEMA_SECONDS", "soon")
    with pytest.raises(UserError, match="CHECK_SCHEMA_SECONDS: found 'soon', expected seconds"):
        axolotl_schema.validate([({}, "gpu")])


def test_a_worker_is_ended_with_what_it_forked():
    worker = subprocess.Popen(["bash", "-c", "sleep 300 & sleep 300 & wait"])
    assert processes.wait_for(lambda: len(psutil.Process(worker.pid).children()) == 2)
    forked = psutil.Process(worker.pid).children()
    axolotl_schema._end(worker)
    assert worker.wait(10) == -9 and not psutil.wait_procs(forked, timeout=10)[1]


@pytest.mark.trap(number=17)
def test_the_schema_is_loaded_without_telemetry(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ntest "$AXOLOTL_DO_NOT_TRACK" = 1 && echo "[[]]"\n')
    python.chmod(0o755)
    monkeypatch.delenv("AXOLOTL_DO_NOT_TRACK", raising=False)
    monkeypatch.setattr(axolotl_schema.sys, "executable", str(python))
    assert axolotl_schema.validate([({}, "cpu")]) == [[]]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.trap(number=16)
def test_no_shipped_recipe_walks_into_a_trap(name, profile):
    task = load_task(name)
    written, resolved, unreadable = traps.load_configs(task, profile)
    found = [problem for config in written + resolved for problem in traps.phase_problems(config, task.root)]
    assert unreadable + found + traps.chain_problems(resolved, task.root) == []


VALID = yaml.safe_load("""
base_model: data/samples/base
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
bf16: true
micro_batch_size: 1
gradient_accumulation_steps: 1
max_steps: 10
learning_rate: 0.0002
optimizer: adamw_torch_fused
attn_implementation: sdpa
sequence_len: 4096
datasets: [{path: a.jsonl, ds_type: json, type: input_output}]
""")
LIGER = {"plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_rms_norm": True}
BROKEN = [
    ("valid", VALID, []),
    ("with a plugin's keys", VALID | LIGER, []),
    # Were the plugin of the config before still there, this key would be known.
    ("a plugin's key without it", VALID | {"liger_rms_norm": True}, [("liger_rms_norm",)]),
    ("a plugin that is not there", VALID | {"plugins": ["axolotl.integrations.nope.Nope"]}, [("plugins", 0)]),
    ("unknown at the top", VALID | {"lora_rank": 8}, [("lora_rank",)]),
    (
        "unknown in a data set",
        VALID | {"datasets": [VALID["datasets"][0] | {"weight": 2}]},
        [("datasets", 0, "weight")],
    ),
    ("unknown in test data", VALID | {"test_datasets": [{"path": "a", "wait": 2}]}, [("test_datasets", 0, "wait")]),
    ("a bad value", VALID | {"max_steps": "many", "lora_r": "x"}, [("max_steps",), ("lora_r",)]),
    (
        "bad values in a data set and outside",
        VALID | {"datasets": [VALID["datasets"][0] | {"shards": "x"}], "max_steps": "x"},
        [("datasets", 0, "shards"), ("max_steps",)],
    ),
    ("combination", VALID | {"rl": "dpo", "sample_packing": True, "datasets": [{"path": "a", "type": "x"}]}, [()]),
]


def recipe_configs():
    for name in TASKS:
        task = load_task(name)
        for phase in task.phases:
            yield f"{name}/{phase}.yml", yamlfile.load(task.dir / f"{phase}.yml")[0], "gpu"
            for profile in ("gpu", "cpu"):
                yield f"{name}/{phase} on {profile}", resolve(task, phase, profile), profile


@pytest.fixture(scope="module")
def verdicts():
    """Everything in one worker: importing Axolotl is what takes the time."""
    recipes = list(recipe_configs())
    jobs = [(config, "gpu") for _, config, _ in BROKEN] + [(config, profile) for _, config, profile in recipes]
    names = [name for name, *_ in BROKEN] + [name for name, *_ in recipes]
    return dict(zip(names, axolotl_schema.validate(jobs), strict=True))


@pytest.mark.trap(number=5)
@pytest.mark.slow
@pytest.mark.parametrize(("name", "keys"), [(name, keys) for name, _, keys in BROKEN])
def test_axolotl_schema_finds(verdicts, name, keys):
    assert sorted(finding.key for finding in verdicts[name]) == sorted(keys)
    assert all(isinstance(finding, Finding) and finding.message for finding in verdicts[name])


@pytest.mark.slow
def test_every_recipe_is_valid_as_written_and_on_both_profiles(verdicts):
    recipes = {name: found for name, found in verdicts.items() if "/" in name}
    assert recipes
    assert not {name: found for name, found in recipes.items() if found}


def test_every_axolotl_config_under_recipes_is_a_phase_of_a_task():
    """So that the test above, which goes by task.yml, leaves none out."""
    phases = {folder.dir / f"{phase}.yml" for folder in map(load_task, TASKS) for phase in folder.phases}
    configs = {path for path in (ROOT / "recipes").rglob("*.y*ml") if "datasets" in yamlfile.load(path)[0]}
    assert phases and configs == phases
