import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from recipekit import ROOT

pytest_plugins = ["captioning", "checking", "regressing", "validating"]

# A loaded machine is no reason to fail.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("patient")

SPEC = """\
name: mini
kind: extraction
title: 小さな課題
summary: A task for tests.
phases: [phase1, phase2]
prompt:
  segments: [system.txt, article.txt]
  bos: <s>
  eos: </s>
  strip: ['^配信.*\\n']
data:
  train:
    pos: {}
    neg: {}
    mix: {base: pos, replay: neg, replay_share: 0.2, seed: 1}
  test: {input: eval.jsonl, gold: gold.csv}
output_schema:
  type: object
  additionalProperties: false
  required: [persons]
  properties:
    persons: {type: array, items: {type: object, required: [name], properties: {name: {type: string}}}}
gold:
  id: id
  separator: "|"
  columns:
    person_name: {path: "persons[].name", compare: person_name}
"""


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """A root folder with one small, complete task named mini."""
    recipe = tmp_path / "recipes" / "mini"
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "task.schema.json", tmp_path / "recipes")
    (recipe / "task.yml").write_text(SPEC, encoding="utf-8")
    (recipe / "system.txt").write_text("抽出する。\n", encoding="utf-8")
    (recipe / "article.txt").write_text("【記事】\n{{ body }}\n", encoding="utf-8")
    for phase in ("phase1", "phase2"):
        (recipe / f"{phase}.yml").write_text("base_model: none\n", encoding="utf-8")
    raw = tmp_path / "data" / "samples" / "mini"
    raw.mkdir(parents=True)
    positive = '{"id": "P%d", "body": "配信 共同\\n%s容疑者を逮捕。", "label": {"persons": [{"name": "%s"}]}}\n'
    negative = '{"id": "N%d", "body": "花火大会%d。", "label": {"persons": []}}\n'
    names = [f"山田{chr(0x4E00 + i)}" for i in range(8)]
    (raw / "pos.jsonl").write_text("".join(positive % (i, n, n) for i, n in enumerate(names)), encoding="utf-8")
    (raw / "neg.jsonl").write_text("".join(negative % (i, i) for i in range(5)), encoding="utf-8")
    (raw / "eval.jsonl").write_text('{"id": "E1", "body": "海野太郎容疑者。"}\n', encoding="utf-8")
    (raw / "gold.csv").write_text("id,person_name\nE1,海野太郎\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def one_thread():
    """Torch on one thread: two of them spin where other tests run beside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no chromium here; on Debian: apt-get install chromium fonts-noto-cjk")
    from playwright.sync_api import sync_playwright

    quiet = ["quic", "gpu", "background-networking", "component-update", "sync"]
    arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield chrome
        chrome.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A new page; at the end it must not have asked another machine for anything, and no script may have failed."""
    requests: list[str] = []
    errors: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        yield page
    own = ("http://127.0.0.1:", "file:", "data:", "blob:")
    assert requests and not [url for url in requests if not url.startswith(own)]
    assert not errors


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a small random model and its tokenizer."""
    from tiny import tiny_base

    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def small_task(mini):
    """The mini task with a small schema and eight articles to predict."""
    from predicting import SCHEMA, write
    from recipekit.task import load_task

    path = mini / "recipes" / "mini" / "task.yml"
    spec = path.read_text(encoding="utf-8").split("output_schema:")[0]
    gold = "gold: {id: id, separator: '|', columns: {person_name: {path: 'persons[].name', compare: text}}}\n"
    schema = f"output_schema: {json.dumps(SCHEMA)}\n"
    path.write_text(f"{spec}predict: {{max_new_tokens: 200}}\n{schema}{gold}", encoding="utf-8")
    (mini / "data" / "test").mkdir()
    articles = [{"id": f"E{i}", "body": "山田太郎容疑者を逮捕。"[: i + 3] * (i % 3 + 1)} for i in range(8)]
    write(mini / "data" / "test" / "eval.jsonl", articles)
    return load_task("mini", mini)
