"""What the repository promises about itself."""

import ast
import re
import subprocess
import sys

import pytest

from recipekit import ROOT
from strip_lock import strip


def tracked(*patterns):
    run = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in run.stdout.split("\0") if name]


def test_committed_lock_holds_no_address():
    run = subprocess.run(["git", "show", "HEAD:uv.lock"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("no commit here")
    assert not re.search(r"https?://", run.stdout), "run: uv run tools/strip_lock.py"
    assert strip(run.stdout) == run.stdout


def test_strip_takes_addresses_out_and_keeps_versions():
    package = (
        '[[package]]\nname = "a"\nversion = "1"\nsource = { registry = "https://host/simple" }\n'
        'dependencies = [\n    { name = "b", source = { registry = "https://host/simple" } },\n]\n'
        'sdist = { url = "https://host/a.tar.gz" }\nwheels = [\n    { url = "https://host/a.whl" },\n]\n\n'
    )
    local = '[[package]]\nname = "me"\nsource = { editable = "." }\n\n[package.metadata]\nrequires-dist = []\n\n'
    out = strip("version = 1\n\n" + local + package)
    assert "https" not in out and "metadata" not in out
    assert out.count("[[package]]") == 2 and 'version = "1"' in out and out.count('registry = "."') == 2
    assert strip(out) == out


@pytest.mark.parametrize("path", tracked("tools/*.py"), ids=lambda p: p.name)
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= 50, f"{node.name} is longer than a screen"


def test_train_all_is_short_and_strict():
    text = (ROOT / "train_all.sh").read_text(encoding="utf-8")
    assert text.count("\n") < 120 and "\nset -euo pipefail\n" in text


def test_readmes_show_the_same_commands():
    pattern = r"^((?:uv|git|tmux|cp|tail|HF_|PROFILE|DATA).*?) *(?:# .*)?$"  # remarks are in the page's language
    commands = [re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.M)
                for name in ("README.md", "README.ja.md")]  # fmt: skip
    assert commands[0] == commands[1] and commands[0]


def test_importing_evaluate_inside_a_tool_gives_the_library():
    code = (
        "import importlib.util, runpy; runpy.run_path('tools/evaluate.py'); "
        "print(importlib.util.find_spec('evaluate').origin)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "site-packages" in run.stdout, run.stderr
