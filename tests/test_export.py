"""Exports as a user runs them: what is written, what is refused, and what is said of it."""

import ast
import json
import os
import subprocess

import pytest

import export
from exporting import chat_task, read_as_ollama, rows, small_base, tiny_qwen2
from recipekit import export_quantised, export_vllm
from recipekit.conversations import Conversation, Conversations
from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.task import load_task


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command on tasks in a folder of their own, and return what it shows."""
    monkeypatch.setattr(export, "load_task", lambda name: load_task(name, tmp_path))
    usual = {"output": None, "model": None, "kind": None, "fields": [], "memory": [], "host": "127.0.0.1", "port": 8000}

    def command(task, to, **options):
        export.command(task, export.Target(to), **{**usual, "tensor_parallel": 1, **options})
        return capsys.readouterr().err

    return command


@pytest.fixture
def companion(tmp_path):
    """The task with a tiny Qwen2 as its merged model."""
    task = chat_task(tmp_path)
    tiny_qwen2(task.outputs / "merged")
    return task


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made, Not a directory; name another --output"):
        export.make_folder(tmp_path / "file" / "x")


def test_a_modelfile_holds_the_system_message_of_the_conversation(companion, run, tmp_path):
    said = run(
        "companion", "ollama", fields=["affection_level=lover", "emotion=sad"], memory=["猫が好き", "明日は面接"]
    )
    path = companion.outputs / "export" / "ollama" / "Modelfile"
    read = dict(read_as_ollama(path.read_text(encoding="utf-8")))
    fields = {"affection_level": "lover", "emotion": "sad", "memories": ["猫が好き", "明日は面接"]}
    assert read["SYSTEM"] == Conversations(companion).system(Conversation(None, [], None, fields))
    assert read["FROM"] == "../../merged" and (path.parent / read["FROM"] / "config.json").is_file()
    assert "conversations, by" in said and "ollama create companion" in said
    run("companion", "gguf", kind=export.Kind.q8_0)
    run("companion", "ollama")
    assert dict(read_as_ollama(path.read_text(encoding="utf-8")))["FROM"] == "../gguf/companion-q8_0.gguf"
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_an_attribute_that_is_not_given_is_in_the_middle(run, tmp_path):
    task = chat_task(tmp_path, "aku")
    tiny_qwen2(task.outputs / "merged")
    run("aku", "ollama", fields=["mood=0"])
    text = (task.outputs / "export" / "ollama" / "Modelfile").read_text(encoding="utf-8")
    assert "関係：2（ちょいちょい会う人）\n機嫌：0（とても悪い）" in text


def test_all_that_is_wrong_with_fields_is_told_at_once(companion, run):
    with pytest.raises(UserError) as error:
        run("companion", "ollama", fields=["affection_level=wife", "who=me", "emotion"], memory=[" "])
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 4 and not (companion.outputs / "export").exists()
    assert "affection_level: found 'wife', expected one of stranger" in told and "who: no such field" in told
    assert "found 'emotion', expected name=value" in told and "--memory: empty" in told


def test_options_that_an_export_does_not_read_are_refused(companion, run):
    with pytest.raises(UserError) as error:
        run("companion", "vllm", kind=export.Kind.f16, memory=["猫"])
    assert [problem.split(":")[0] for problem in error.value.problems] == ["--type", "--memory"]
    with pytest.raises(UserError, match="no f32 GGUF of this model yet"):
        run("companion", "ollama", kind=export.Kind.f32)


def test_without_a_merged_model_it_says_what_to_run(run, tmp_path):
    chat_task(tmp_path)
    for to in export.Target:
        with pytest.raises(UserError, match=r"no such folder; .*train_all.sh companion"):
            run("companion", to)
    (tmp_path / "outputs" / "companion" / "merged").mkdir(parents=True)
    (tmp_path / "outputs" / "companion" / "merged" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no \*.safetensors in it"):
        run("companion", "vllm")


def test_a_regression_is_refused():
    with pytest.raises(UserError, match=r"bigfive: a regression, whose model gives numbers .* tools/serve.py"):
        Exported.of(load_task("bigfive"), None)


def test_an_extraction_goes_without_system_and_chat_template(mini, run):
    task = load_task("mini", mini)
    small_base(mini, "mini")
    with pytest.raises(UserError, match="make a GGUF first"):
        run("mini", "ollama")
    run("mini", "gguf", kind=export.Kind.f32)
    said = run("mini", "ollama")
    read = dict(read_as_ollama((task.outputs / "export" / "ollama" / "Modelfile").read_text(encoding="utf-8")))
    assert read["TEMPLATE"] == "{{ .Prompt }}" and "SYSTEM" not in read and read["temperature"] == "0"
    assert "no SYSTEM" in said
    with pytest.raises(UserError, match="--set"):
        run("mini", "ollama", fields=["a=b"])


def test_vllm_gets_a_script_and_the_bot_its_settings(companion, run, tmp_path):
    said = run("companion", "vllm", port=8123, tensor_parallel=2)
    folder = companion.outputs / "export" / "vllm"
    assert (folder / "bot.env").read_text() == (
        "DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=http://localhost:8123/v1\nLOCAL_MODEL_NAME=companion\n"
    )
    assert "LOCAL_MODEL_NAME=companion" in said and "encrypts" not in said
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uvx").write_text('#!/bin/sh\npwd -P\nprintf "%s\\n" "$@"\n')
    (tools / "uvx").chmod(0o755)
    ran = subprocess.run(
        ["bash", str(folder / "serve.sh"), "--api-key", "a b"], cwd=tmp_path, capture_output=True, text=True,
        check=True, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip
    where, *given = ran.stdout.splitlines()
    assert where == str(folder) and given == [
        "--from", "vllm", "vllm", "serve", "../../merged", "--served-model-name", "companion", "--host", "127.0.0.1",
        "--port", "8123", "--tensor-parallel-size", "2", "--max-model-len", "512", "--generation-config", "vllm",
        "--api-key", "a b",
    ]  # fmt: skip
    ran = subprocess.run(
        ["bash", str(folder / "serve.sh")], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert ran.returncode == 2 and "uvx is missing" in ran.stderr


def test_vllm_on_another_address_is_warned_of_and_heads_must_be_shared_out(companion, run):
    assert "whoever reaches this address" in run("companion", "vllm", host="0.0.0.0")
    assert "LOCAL_MODEL_URL=http://localhost:8000/v1" in (companion.outputs / "export/vllm/bot.env").read_text()
    with pytest.raises(
        UserError, match="--tensor-parallel: found 3, expected a number that divides the model's 4 heads"
    ):
        run("companion", "vllm", tensor_parallel=3)


def test_a_script_that_bash_cannot_read_is_not_left(tmp_path):
    with pytest.raises(UserError, match="bash cannot read it"):
        export_vllm.write(tmp_path / "serve.sh", "if true; then\n")
    assert not (tmp_path / "serve.sh").exists()


@pytest.mark.parametrize("method", export_quantised.METHODS)
def test_a_quantisation_is_a_script_and_the_tasks_own_conversations(companion, run, method):
    said = run("companion", method)
    folder = companion.outputs / "export" / method
    script = (folder / f"quantise_{method}.py").read_text(encoding="utf-8")
    names = {
        alias.name for node in ast.walk(ast.parse(script)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    wanted = {"AWQModifier", "QuantizationModifier"} if method == "awq" else {"GPTQModifier"}
    assert "truncation=True)" not in script  # it would be saved with the tokenizer
    assert names >= wanted | {"oneshot"} and "trust_remote_code=True" not in script
    texts = [
        json.loads(line)["text"] for line in (folder / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    model = Exported.of(companion, None)
    reads = Conversations(companion)
    meant = [model.render(reads.messages(reads.read(row)), reply_follows=False) for row in rows()]
    assert sorted(texts) == sorted(meant)  # the training rows: no validation row, and the reply with its end
    assert all(text.rstrip().endswith("<|im_end|>") for text in texts)
    assert "needs a GPU" in said and "uv run --no-project" in said and "nothing is quantised yet" in said


def test_too_little_to_calibrate_on_is_told(companion, run, tmp_path):
    path = tmp_path / "data" / "samples" / "companion" / "roleplay.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:5]), encoding="utf-8")
    with pytest.raises(UserError, match="5 rows to calibrate on, expected 16 at least"):
        run("companion", "gptq")
