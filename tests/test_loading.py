"""Nothing that is read can run code: weights are safetensors, and no code beside a model is run."""

import ast
import json
import pickle
import subprocess
import sys

import pytest
import torch

from recipekit import ROOT, models, predictor, rowcheck
from recipekit.errors import UserError
from tiny import tiny_adapter, tiny_base


class Harm:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def harm(tmp_path):
    return tmp_path / "harm"


def pickled(path, harm):
    path.with_suffix(".safetensors").unlink(missing_ok=True)
    path.write_bytes(pickle.dumps(Harm(harm)))


def test_the_harm_is_real(tmp_path, harm):
    pickled(tmp_path / "x.bin", harm)
    pickle.loads((tmp_path / "x.bin").read_bytes())
    assert harm.exists()


def test_a_model_of_pickled_weights_is_refused_by_name_and_not_read(tmp_path, harm, small_task):
    base = tiny_base(tmp_path / "base")
    pickled(base / "pytorch_model.bin", harm)
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"only pytorch_model.bin, which can run code"):
        predictor.check(small_task, base, None)
    for load in (models.load_model, models.load_classifier):
        with pytest.raises(OSError, match="safetensors"):
            load(base, torch.float32)
    assert not harm.exists()


def test_an_adapter_of_pickled_weights_is_refused_by_name_and_not_read(tmp_path, harm, small_task):
    base = tiny_base(tmp_path / "base")
    adapter = tmp_path / "adapter"
    tiny_adapter(adapter, base, 1)
    pickled(adapter / "adapter_model.bin", harm)
    with pytest.raises(UserError, match=r"adapter_model.safetensors: no such file; .*only adapter_model.bin"):
        predictor.check(small_task, None, adapter)
    assert not harm.exists()


def test_code_beside_a_model_is_not_run_and_nobody_is_asked(tmp_path, harm, monkeypatch):
    base = tiny_base(tmp_path / "base")
    (base / "harm.py").write_text(f"open({str(harm)!r}, 'w')\n", encoding="utf-8")
    config = json.loads((base / "config.json").read_text()) | {"model_type": "of_its_own", "architectures": None}
    auto = {
        name: f"harm.{name}" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    }
    (base / "config.json").write_text(json.dumps(config | {"auto_map": auto}))
    tokens = json.loads((base / "tokenizer_config.json").read_text())
    auto = {"auto_map": {"AutoTokenizer": ["harm.Slow", "harm.Fast"]}, "tokenizer_class": "OfItsOwn"}
    (base / "tokenizer_config.json").write_text(json.dumps(tokens | auto))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    for load in (models.load_config, lambda source: models.load_model(source, torch.float32)):
        with pytest.raises(ValueError, match="trust_remote_code"):
            load(base)
    for load in (models.load_tokenizer, lambda source: rowcheck.load_tokenizer(tmp_path, "base")):
        with pytest.raises((ValueError, UserError), match="contains custom code"):
            load(base)
    assert not harm.exists()


def calls_in(path):
    """Yield what a module calls, as written, with the keywords; **NAME counts as a keyword of that name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {keyword.arg or ast.unparse(keyword.value): keyword for keyword in node.keywords},
            )


def test_every_load_of_the_tools_says_that_it_is_safe():
    seen = 0
    for path in sorted((ROOT / "tools").rglob("*.py")):
        for name, keywords in calls_in(path):
            if name.startswith("Auto") and name.endswith(".from_pretrained"):
                safe = "SAFE_WEIGHTS" if "Model" in name else "SAFE"
                assert safe in keywords, f"{path}: {name} without **models.{safe}"
                seen += 1
            assert keywords.keys().isdisjoint({"trust_remote_code", "weights_only"}), path
    assert seen >= 6


UNSAFE = [
    "import pickle",
    "import joblib",
    "import torch\ntorch.load('x')",
    "from torch import load",
    "import yaml\nyaml.load('x', yaml.Loader)",
    "eval('1')",
    "exec('1')",
    "import os\nos.system('x')",
    "import subprocess\nsubprocess.run('x', shell=True)",
    "import tempfile\ntempfile.mktemp()",
    "import requests\nrequests.get('x')",
    "import httpx\nhttpx.get('x', timeout=None)",
    "import tarfile\ntarfile.open('x').extractall()",
]


@pytest.mark.parametrize("code", UNSAFE)
def test_the_linter_refuses(code):
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "S,TID251", "--output-format=concise"]
    command += ["--stdin-filename", "tools/recipekit/new.py", "-"]
    done = subprocess.run(command, input=f"{code}\n", cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and any(f": {kind}" in done.stdout for kind in ("S", "TID251")), done
