import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import httpx
import pytest

import demo
from recipekit import ROOT, spans
from recipekit.answer_view import columns
from recipekit.errors import UserError
from recipekit.extract import predicted_values
from recipekit.gold import GoldFile
from recipekit.inputs import Article
from recipekit.predictor import LocalPredictor
from recipekit.task import load_task

BASE = ROOT / "data" / "samples" / "base"
# The base knows nothing of crimes, so it is made to name one person and one place of every article.
FORCED = {
    "    persons:\n      type: array\n": "    persons:\n      type: array\n      minItems: 1\n      maxItems: 1\n",
    "occured_locations: { type: array,": "occured_locations: { type: array, minItems: 1, maxItems: 2,",
    "is_real: { type: boolean }": "is_real: { enum: [true] }",
    "is_offender: { type: boolean }": "is_offender: { enum: [true] }",
}


def row(body):
    return {"output": {"persons": [{"name": body[:2]}]}, "raw": "", "truncated": False, "seconds": 0.1}


@pytest.fixture
def task(mini):
    return load_task("mini", mini)


@pytest.mark.parametrize("article", ["", " \n　", "配信 共同\n"])
def test_an_empty_article_is_asked_for(task, article):
    view, code = demo.answer(task, pytest.fail, article)
    assert "記事を貼り付けてください。" in view and code == ""


@pytest.mark.parametrize("name", ["aku", "bigfive", "ogiri"])
def test_a_task_that_extracts_nothing_is_refused(name):
    with pytest.raises(UserError, match=f"demo: reads tasks of kind extraction, and {name} is of kind .*chat.py talks"):
        demo.command(name)


def test_an_article_that_is_too_long_is_not_read(task):
    view, code = demo.answer(task, pytest.fail, "山" * (demo.LONGEST + 1))
    assert "20,000文字まで" in view and "20,001" in view and code == ""
    assert demo.answer(task, row, "山" * demo.LONGEST)[1]


def test_what_a_person_can_mend_is_shown_on_the_page(task):
    def extract(_):
        raise UserError("too <long>")

    view, code = demo.answer(task, extract, "山田")
    assert "too &lt;long&gt;" in view and code == ""


def test_an_answer_is_shown_as_page_and_json(task):
    view, code = demo.answer(task, row, "山田が")
    assert "<mark" in view and json.loads(code) == {"persons": [{"name": "山田"}]}


def test_examples_are_the_first_of_the_bundled_test_set(task):
    hawks = load_task("hawks")
    bodies = demo.examples(hawks)
    rows = map(json.loads, (hawks.root / "data/samples/hawks/hawks_eval_input.jsonl").open(encoding="utf-8"))
    ids = {row["body"]: row["id"] for row in rows}
    rows = GoldFile(hawks, hawks.root / "data/samples/hawks/hawks_eval_gold.csv")
    gold = {row.id: row.is_negative() for row in rows}
    assert [gold[ids[body]] for body in bodies] == [False, False, False, True]
    assert demo.examples(task) == ["海野太郎容疑者。"]
    (task.root / "data/samples/mini/gold.csv").unlink()
    assert demo.examples(task) == []


def test_a_free_port_is_taken_and_a_taken_one_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(demo, "PORTS", range(taken, taken + 20))
        assert taken < demo.free_port("127.0.0.1", None) < taken + 20
        with pytest.raises(UserError, match=rf"127.0.0.1:{taken}: .*in use.*--port"):
            demo.free_port("127.0.0.1", taken)
    with pytest.raises(UserError, match=r"192\.0\.2\.1:.*--host"):
        demo.free_port("192.0.2.1", None)
    with pytest.raises(UserError, match="--host"):
        demo.free_port("nowhere.invalid", None)


def test_one_article_is_read_at_a_time(task):
    page = demo.build(task, row)
    queued = [function for function in page.fns.values() if function.queue]
    assert len(queued) == 2, "the button and the examples"
    assert len({function.concurrency_id for function in queued}) == 1
    assert {function.concurrency_limit for function in queued} == {"default"}
    assert page._queue.default_concurrency_limit == 1
    assert not page.analytics_enabled and not page.api_open


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no task 'nothing'"),
        (["hawks", "--model", "nowhere"], "nowhere: no such folder"),
        (["hawks", "--host", "192.0.2.1"], "192.0.2.1:7860:"),
    ],
)
def test_command_line_errors_are_one_line_and_exit_2(tmp_path, arguments, message):
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the tools and the forced task, in which the demo runs and may write whatever it writes."""
    root = tmp_path_factory.mktemp("demo")
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data" / "samples" / "hawks", root / "data" / "samples" / "hawks")
    path = root / "recipes" / "hawks" / "task.yml"
    text = path.read_text(encoding="utf-8")
    for old, new in FORCED.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def port(home):
    """The port at which the real tool serves."""
    number = demo.free_port("127.0.0.1", None)
    command = [sys.executable, str(home / "tools" / "demo.py"), "hawks", "--model", str(BASE), "--port", str(number)]
    (home / "tmp").mkdir()
    names = {"HOME": home, "TMPDIR": home / "tmp", "PYTHONPATH": home / "tools", "OMP_NUM_THREADS": 1}
    env = {**os.environ, **{name: str(value) for name, value in names.items()}}
    env |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # nobody is there
    with (home / "screen.txt").open("wb") as screen:
        server = subprocess.Popen(command, cwd=home, env=env, stdout=screen, stderr=screen)
    try:
        for _ in range(240):
            if server.poll() is not None or "demo: http" in (home / "screen.txt").read_text(encoding="utf-8"):
                break
            time.sleep(0.5)
        assert server.poll() is None, (home / "screen.txt").read_text(encoding="utf-8")
        yield number
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def predicted(home):
    """Predict an article with the same model, in this process."""
    task = load_task("hawks", home)
    predictor = LocalPredictor.load(task, BASE, batch_size=8)
    return lambda body: next(predictor.predict([Article("1", body)]))


def marked(page):
    return page.locator("#answer mark").evaluate_all(
        "all => all.map(m => { const r = m.cloneNode(true); const label = r.querySelector('rt'); label.remove();"
        " return [r.textContent, label.textContent] })"
    )


def expected_marks(home, body, row):
    task = load_task("hawks", home)
    marks, absent = spans.locate(body, predicted_values(task, row["output"]))
    titles = {name: column.title for name, column in columns(task).items()}
    pieces = spans.cut(body, marks)
    return [[text, "／".join(titles[label] for label in labels)] for text, labels in pieces if labels], absent


def opened(page, port):
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#extract")
    return page


@pytest.mark.slow
def test_pasted_article_is_extracted_as_predict_does(page, port, home, predicted):
    body = demo.examples(load_task("hawks", home))[2]
    row = predicted(body)
    marks, absent = expected_marks(home, body, row)
    assert len(marks) > 3 and absent, "the base should copy some values and invent others"
    opened(page, port).fill("#article textarea", body)
    page.click("#extract")
    page.wait_for_selector("#answer mark")
    assert marked(page) == marks
    assert page.locator("[data-notice=absent] strong").all_inner_texts() == [value for _, value in absent]
    page.wait_for_selector("#json .cm-line")
    assert json.loads("".join(page.locator("#json .cm-line").all_inner_texts())) == row["output"]
    assert re.search(r"\d\.\d\d秒", page.inner_text("#answer .seconds"))
    page.click("text=消す")
    page.wait_for_selector("#answer .answer", state="detached")
    assert page.input_value("#article textarea") == "" and not page.locator("#json").is_visible()


@pytest.mark.slow
def test_ctrl_enter_examples_and_what_is_no_article(page, port, home, predicted):
    body = demo.examples(load_task("hawks", home))[1]
    opened(page, port).press("#article textarea", "Control+Enter")
    page.wait_for_selector("text=記事を貼り付けてください。")
    page.click(f"text={body[:12]}")
    page.wait_for_selector("#answer mark")
    assert marked(page) == expected_marks(home, body, predicted(body))[0]
    assert page.input_value("#article textarea") == body
    long = body * 15
    row = predicted(long)
    assert row["windows"] > 1
    page.fill("#article textarea", long)
    page.press("#article textarea", "Control+Enter")
    page.wait_for_selector(f"text={row['windows']}個に分けて")
    page.fill("#article textarea", "<script>document.title = 'broken'</script>太郎容疑者")
    page.press("#article textarea", "Control+Enter")
    page.wait_for_function("document.querySelector('#answer .article')?.textContent.includes('<script>')")
    assert page.title() == load_task("hawks", home).title


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_the_screen(page, port, width):
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, port).click("text=竹生町字")
    page.wait_for_selector("#answer mark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    edges = page.locator("#answer mark, #answer dd").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().right)"
    )
    assert max(edges) <= width


@pytest.mark.slow
def test_the_page_is_served_here_only_and_names_no_other_machine(port):
    with pytest.raises(ConnectionRefusedError):  # where it listened on every address, it would answer here as well
        socket.create_connection(("127.0.0.2", port), timeout=5)
    html = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
    assert "gradio" in html and '<html\n\tlang="ja"' in html
    assert set(re.findall(r"https?://[^/\"'\s]+", html)) <= {f"http://127.0.0.1:{port}"}
    assert "Content-Security-Policy" in html


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "kind", "status"),
    [
        ({}, "application/json", 200),
        ({"origin": "http://127.0.0.1:{port}"}, "application/json", 200),
        ({"origin": "https://evil.example"}, "application/json", 403),
        ({"origin": "null"}, "application/json", 403),
        ({"sec-fetch-site": "cross-site"}, "application/json", 403),
        ({"host": "evil.example"}, "application/json", 403),
        ({}, "text/plain", 415),
    ],
)
def test_pages_of_other_sites_are_refused(port, headers, kind, status):
    base = f"http://127.0.0.1:{port}"
    functions = httpx.get(f"{base}/config", trust_env=False).json()["dependencies"]
    asked = {"data": ["記事"], "fn_index": functions[0]["id"], "session_hash": "abc"}
    own = {name: value.format(port=port) for name, value in headers.items()} | {"content-type": kind}
    reply = httpx.post(f"{base}/gradio_api/queue/join", content=json.dumps(asked), headers=own, trust_env=False)
    assert reply.status_code == status, reply.text
    if "host" in headers:
        assert httpx.get(base, headers=headers, trust_env=False).status_code == 403
    upload = {"files": ("x.html", b"<script>alert(1)</script>")}
    assert httpx.post(f"{base}/gradio_api/upload", files=upload, trust_env=False).status_code == 415


@pytest.mark.slow
def test_nothing_that_was_pasted_is_kept(page, port, home):
    secret = "秘密坂の風変わりな記事"
    opened(page, port).fill("#article textarea", secret)
    page.click("#extract")
    page.wait_for_selector("#answer .article")
    assert secret in page.inner_text("#answer .article")
    files = [path for path in home.rglob("*") if path.is_file()]
    assert home / "screen.txt" in files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
