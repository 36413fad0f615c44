"""Merge the adapter of a task's last phase into its base: a model that needs neither PEFT nor Axolotl.

    uv run tools/merge.py hawks --profile gpu
    uv run tools/merge.py companion --phase phase3 --profile gpu    # an earlier phase's, which DPO starts from

The base's files are read, added to and written one after the other (`axolotl merge-lora` does the like, but would take
lora_model_dir, the phase before, where the YAML names one). The sum is made in float32 and stored as the base is
(profile gpu) or in float32 (profile cpu, where the model is small). What was written is read back and must give the
logits of base and adapter, which PEFT computes.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from recipekit import merging, models, proving, regressor
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.proving import Proof, prove
from recipekit.regression import RegressionConfig
from recipekit.regressor import FILE, Regressor, half_width
from recipekit.resolve import base_model_key, data_files, resolve
from recipekit.runs import Step, digest, read_record, relative, replace_folder, write_text
from recipekit.segments import read_jsonl
from recipekit.task import Task, load_task

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map*", "added_tokens*", "chat_template*", "vocab*", "merges.txt")


def check_trained(task: Task, adapter: Path, files: list[Path]) -> None:
    """Make sure that weights are those that the training step finished with.

    Args:
        task: The task.
        adapter: The phase's output folder.
        files: What it leaves there: an adapter and its config, or a whole model's.

    Raises:
        UserError: They are missing, there is no record that the phase is done, or they are not those of the record.
    """
    remedy = f"run: uv run tools/train.py {task.name} {adapter.name}"
    if missing := [path for path in files if not path.is_file()]:
        raise UserError([f"{relative(path)}: no such file; {remedy}" for path in missing])
    record_path = task.outputs / "state" / f"{adapter.name}.json"
    products = read_record(record_path).get("products", {})
    for weights in (path for path in files if path.suffix == ".safetensors"):
        recorded = products.get(relative(weights))
        if recorded is None:
            raise UserError(
                f"{relative(record_path)}: no record of {weights.name}, {adapter.name} is not finished; {remedy}"
            )
        if recorded != digest(weights):
            raise UserError(f"{relative(weights)}: not the weights that {adapter.name} finished with; {remedy}")


def check_base(task: Task, adapter: Path, config: dict[str, Any], found: str) -> None:
    """Make sure that a base is what the phase was trained on; `found` is today's digest of it.

    Raises:
        UserError: It was changed since.
    """
    recorded = read_record(task.outputs / "state" / f"{adapter.name}.json").get("inputs", {}).get("base_model")
    if recorded != found:
        again = f"run: uv run tools/train.py {task.name} {adapter.name} --profile as for this step"
        changed = f"{config['base_model']}: not the base that {adapter.name} was trained on, it was changed since"
        raise UserError(f"{changed}; restore it, or {again}")


def find_base(task: Task, adapter: Path, config: dict[str, Any]) -> Path:
    """Find the folder of the base of an adapter, which must be the one the recipe names.

    Raises:
        UserError: They differ, or the adapter is torn or untrained.
    """
    if not config.get("adapter"):
        return models.files_of(task.root, config["base_model"], config.get("revision_of_model"))
    remedy = f"run: uv run tools/train.py {task.name} {adapter.name}"
    base = models.base_of(adapter, models.check_adapter(adapter, remedy), task.root)
    if base not in (config["base_model"], str(task.root / config["base_model"])):
        raise UserError(
            f"{relative(adapter)}/adapter_config.json: base_model_name_or_path is {base}, but {adapter.name} is to be "
            f"trained on {config['base_model']}; {remedy} --profile as for this step"
        )
    return models.files_of(task.root, base, config.get("revision_of_model"))


def check_tokenizers(adapter: Path, trained: Any, base: Any) -> None:
    """Make sure that training kept the base's tokenizer; a padding token may have been added where there was none.

    Raises:
        UserError: Special tokens, chat template or vocabulary differ.
    """
    problems = []
    special = ["bos_token", "eos_token", "unk_token", *(["pad_token"] if base.pad_token else [])]
    for name in [*special, "chat_template"]:
        if getattr(trained, name) != getattr(base, name):
            problems.append(f"{name} is {getattr(trained, name)!r}, in the base {getattr(base, name)!r}")
    if trained.get_vocab() != base.get_vocab():
        problems.append(f"{len(trained)} tokens, in the base {len(base)}, or other ones")
    if problems:
        remedy = "take the setting that changes it out of the recipe and train again"
        raise UserError([f"{relative(adapter)}: tokenizer: {problem}; {remedy}" for problem in problems])


def combine(source: Path, adapter: Path, target: Path, proof: Proof, dtype: str) -> tuple[Any, Any]:
    """Write the weights and the config of a merged model.

    File by file in the memory of one; PEFT merges in memory what is more than LoRA on weights of the base's files,
    such as new heads.

    Args:
        source: The base's folder.
        adapter: The adapter's folder, or that of a model whose every weight was trained.
        target: Folder to write.
        proof: What logits are taken of.
        dtype: What the weights are stored in.

    Returns:
        The logits of what was trained and of the base.
    """
    import torch
    from peft import PeftModel

    found = merging.updates(source, adapter)
    model = proof.load(source, float32=found is None)
    base = proof.logits(model)
    if not (adapter / "adapter_config.json").exists():
        source, model = adapter, proof.load(adapter, float32=found is None)
    else:
        model = PeftModel.from_pretrained(model, str(adapter))
    tuned = proof.logits(model)
    if found is None:
        merged = model.merge_and_unload(safe_merge=True) if isinstance(model, PeftModel) else model
        if proof.spec:
            merged.config.id2label = proof.spec.id2label
            merged.config.label2id = {name: place for place, name in proof.spec.id2label.items()}
        merged.to(getattr(torch, dtype)).save_pretrained(target, max_shard_size="5GB")
        return tuned, base
    del model
    config = models.load_config(source)
    config.dtype = dtype
    config.save_pretrained(target)
    merging.merge(source, found, target, getattr(torch, dtype))
    return tuned, base


def write_merged(source: Path, adapter: Path, target: Path, proof: Proof, dtype: str | None) -> dict[str, Any]:
    """Merge into a folder and prove what was written.

    Args:
        source: The base's folder.
        adapter: The adapter's folder, or that of a model whose every weight was trained.
        target: Folder to write.
        proof: What to prove it on.
        dtype: What the weights are stored in; None: as the base's config says.

    Returns:
        Facts for the step's record.
    """
    import torch
    from transformers import GenerationConfig

    dtype = dtype or str(models.load_config(source).dtype or torch.float32).removeprefix("torch.")
    target.mkdir(parents=True)
    with progress("merge", 3) as advance:
        tuned, base = combine(source, adapter, target, proof, dtype)
        advance()
        if proof.spec is None:
            config = models.load_config(target)
            keep = {name: getattr(config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
            GenerationConfig(do_sample=False, **keep).save_pretrained(target)
        for pattern in TOKENIZER_FILES:
            for file in adapter.glob(pattern):
                shutil.copy2(file, target)
        keep_marks(target)
        advance()
        facts = prove(base, tuned, proof.logits(proof.load(target, float32=False)), dtype)
        advance()
    return {"dtype": dtype, **facts}


def keep_marks(folder: Path) -> None:
    """Make whoever loads a merged model's tokenizer mark second texts, where the model was trained so."""
    path = folder / "tokenizer_config.json"
    tokenizer = models.load_tokenizer(folder)
    before = tokenizer.model_input_names
    if models.mark_second_text(tokenizer, models.load_config(folder)).model_input_names != before:
        kept = json.loads(path.read_text(encoding="utf-8")) | {"model_input_names": tokenizer.model_input_names}
        write_text(path, json.dumps(kept, ensure_ascii=False, indent=2) + "\n")


def write_heads(folder: Path, spec: RegressionConfig, task: Task, config: dict[str, Any]) -> None:
    """Write beside merged weights what their outputs mean, and how far they were off on the validation rows."""
    facts = {"regression": spec.model_dump(exclude_none=True), "max_length": config["sequence_len"], "interval": {}}
    write_text(folder / FILE, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
    rows = [row for _, row in read_jsonl(task.root / config["test_datasets"][0]["path"])]
    pairs = [row["pair"] for row in rows] if "pair" in rows[0] else None
    with progress("intervals", len(rows)) as advance:
        values = Regressor.load(folder).predict([row["body"] for row in rows], pairs, advance=advance)
    labels = np.array([[row["labels"][name] for name in spec.numbers] for row in rows])
    errors = np.abs(values - labels).T
    facts["interval"] = {name: round(half_width(own), 4) for name, own in zip(spec.numbers, errors, strict=True)}
    write_text(folder / FILE, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")


def step_inputs(task: Task, config: dict[str, Any], profile: str, files: list[Path]) -> dict[str, Any]:
    """Name what the merged model depends on."""
    return {
        **{path.name: path for path in files},
        "base": base_model_key(task, config),
        "profile": profile,
        "merge.py": Path(__file__),
        "models.py": Path(models.__file__),
        "proving.py": Path(proving.__file__),
        "regressor.py": Path(regressor.__file__),
        "merging.py": Path(merging.__file__),
        **({relative(path): path for path in data_files(task, config)} if "regression" in config else {}),
    }


def merge(
    task: Annotated[str, typer.Argument(help="A folder under recipes/")],
    profile: Annotated[str, typer.Option(help="cpu or gpu")] = "gpu",
    phase: Annotated[str | None, typer.Option(help="an earlier phase, into outputs/TASK/PHASE/merged")] = None,
) -> None:
    """Merge the last phase's adapter into the base, proving it on one prompt."""
    merge_task(load_task(task), profile, phase)


def merge_task(task: Task, profile: str, earlier: str | None = None) -> None:
    """Merge unless it is done.

    Args:
        task: The task.
        profile: "cpu" or "gpu".
        earlier: The phase whose adapter is merged; None: the last one's.

    Raises:
        UserError: The phase is not finished, its adapter or tokenizer is not what it should be, or the merged model
            does not give what base and adapter give.
    """
    phase = earlier or task.phases[-1]
    name = f"merge_{earlier}" if earlier else "merge"
    log_to(name, task.outputs)
    config = resolve(task, phase, profile)
    adapter = task.root / config["output_dir"]
    merged = adapter / "merged" if earlier else task.outputs / "merged"
    files = models.phase_files(adapter, config)
    check_trained(task, adapter, files)
    inputs = step_inputs(task, config, profile, files)
    step = Step(task.outputs, name, inputs, [merged])
    if step.done():
        show(f"{name}: up to date ({relative(merged)})")
        return
    source = find_base(task, adapter, config)
    if torn := models.torn_weights(source, "restore it, then run the same command again"):
        raise UserError(torn)
    check_base(task, adapter, config, step.input_digests["base"])
    tokenizer = models.load_tokenizer(adapter)
    check_tokenizers(adapter, tokenizer, models.load_tokenizer(source))
    proof = Proof.of(task, config, models.mark_second_text(tokenizer, models.load_config(source)))
    new = merged.with_name(".merged.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        dtype = "float32" if profile == "cpu" else None
        facts = write_merged(source, adapter, new, proof, dtype)
        prompt = read_record(task.outputs / "state" / f"{phase}.json").get("prompt")
        origin = {"task": task.name, "adapter": relative(adapter), "prompt": prompt}
        write_text(new / "recipe.json", json.dumps(origin, indent=2) + "\n")  # predict.py holds its prompt against it
        if proof.spec:
            write_heads(new, proof.spec, task, config)
        replace_folder(new, merged)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    step.record(adapter=relative(adapter), **facts)
    show(f"{name}: {relative(adapter)} into {config['base_model']} -> {relative(merged)}, in {facts['dtype']}; "
         f"logits within {facts['merge_error']:.0e} of base + adapter's effect")  # fmt: skip


if __name__ == "__main__":
    main(merge)
