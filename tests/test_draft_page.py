"""The real drafting tool with a real model, in Chromium: keys, restarts, kills, and who is refused."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import httpx
import pytest

from demo import free_port
from drafting import even, write_rows
from recipekit import ROOT

pytestmark = pytest.mark.slow
BASE = ROOT / "data" / "samples" / "base"
SCENES = """\
scenes:
  - {id: rain, context: 雨の帰り道, attribute: [4, 0], fields: {genre: weather}, user: 今日は雨だったね}
  - {id: lunch, context: 昼休み, attribute: [0, 4], fields: {genre: food}, user: [お弁当なに食べたの, おいしそうだね]}
  - {id: open, context: 週末の予定}
  - {id: last, user: "<script>document.title = 'broken'</script>"}
"""


class Tool:
    """The tool in a folder of its own."""

    def __init__(self, home):
        self.home = home
        self.folder = home / "outputs" / "aku" / "draft"
        self.process = None

    def command(self, *arguments):
        words = [sys.executable, str(self.home / "tools" / "draft.py"), "aku", *arguments]
        names = {"HOME": self.home, "TMPDIR": self.home, "PYTHONPATH": self.home / "tools", "OMP_NUM_THREADS": 1}
        env = {**os.environ, **{name: str(value) for name, value in names.items()}}
        env |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # nobody is there
        return words, {"cwd": self.home, "env": env}

    def start(self, *arguments):
        self.port = free_port("127.0.0.1", None)
        screen = self.home / "screen.txt"
        words, settings = self.command("--port", str(self.port), *arguments)
        with screen.open("wb") as stream:
            self.process = subprocess.Popen(words, stdout=stream, stderr=stream, **settings)
        for _ in range(360):
            said = screen.read_text(encoding="utf-8")
            if self.process.poll() is not None or "draft: http" in said:
                break
            time.sleep(0.5)
        assert self.process.poll() is None, said
        return self

    def stop(self, number):
        self.process.send_signal(number)
        self.process.wait(30)
        return (self.home / "screen.txt").read_text(encoding="utf-8")

    def events(self, what=None):
        lines = (self.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if what in (None, event["do"])]

    def rows(self):
        return [json.loads(line) for line in (self.folder / "accepted.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def home(tmp_path):
    for name in ("tools", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    write_rows(tmp_path / "data" / "samples" / "aku" / "aku.jsonl", even(30))
    (tmp_path / "scenes.yml").write_text(SCENES, encoding="utf-8")
    tool = Tool(tmp_path)
    yield tool
    if tool.process and tool.process.poll() is None:
        tool.process.kill()
        tool.process.wait(30)


WITH_MODEL = ("--contexts", "scenes.yml", "--model", str(BASE), "--max-new-tokens", "24")


def opened(page, tool):
    page.goto(f"http://127.0.0.1:{tool.port}/")
    return page


def at(page, name, state):
    """Wait until the page shows a scene in a state, ready for the next key."""
    page.wait_for_selector(f'#scene [data-id="{name}"][data-state={state}]', timeout=60_000)
    page.wait_for_function("!document.querySelector('#notice')?.textContent.includes('Drafting')")
    if state == "reply":
        page.wait_for_selector("#accept:not([disabled])")
    page.wait_for_timeout(150)


def box(page, name):
    return page.input_value(f"#{name} textarea")


def test_a_session_by_keys_alone(page, home):
    home.start(*WITH_MODEL)
    at(opened(page, home), "rain", "reply")
    first = box(page, "reply")
    assert first == home.events("draft")[0]["text"] and first
    assert page.inner_text("#total") == "30" and "4 パートナー" in page.inner_text("#scene")
    page.keyboard.press("d")
    page.wait_for_selector("text=下書き 2 / 2")
    second = box(page, "reply")
    page.keyboard.press("ArrowUp")
    page.wait_for_selector("text=下書き 1 / 2")
    assert first != second and box(page, "reply") == first
    page.keyboard.press("a")
    at(page, "lunch", "reply")
    assert home.rows()[0]["conversation"][-1]["content"] == first and page.inner_text("#total") == "31"
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("からあげだよ。ard")  # letters are no keys here
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=2 / 2 ターン目")
    at(page, "lunch", "reply")
    assert "からあげだよ。ard" in page.inner_text(".said .assistant") and len(home.rows()) == 1
    page.keyboard.press("a")
    at(page, "open", "user")
    assert [row["metadata"]["source"] for row in home.rows()] == ["model", "edited"]
    page.keyboard.type("どこ行く？")  # the place to write in has the keys
    page.keyboard.press("Control+Enter")
    at(page, "open", "reply")
    page.keyboard.press("r")
    at(page, "last", "reply")
    assert page.inner_text("[data-count=rejected] b") == "1" and page.title() != "broken"
    page.keyboard.press("u")
    at(page, "open", "reply")
    page.keyboard.press("ArrowRight")
    at(page, "last", "reply")
    page.keyboard.press("ArrowLeft")
    at(page, "open", "reply")
    assert len(home.events("reject")) == len(home.events("undo")) == 1
    shutil.copy(home.folder / "accepted.jsonl", home.home / "data" / "samples" / "aku" / "aku_val.jsonl")
    check = [sys.executable, str(home.home / "tools" / "report_data.py"), "aku", "--map", "none"]
    subprocess.run(check, check=True, capture_output=True, **home.command()[1])


def test_kill_9_in_the_middle_loses_nothing(browser, home):
    home.start(*WITH_MODEL)
    page = browser.new_page()  # whose console complains of the killed server
    at(opened(page, home), "rain", "reply")
    page.keyboard.press("a")
    at(page, "lunch", "reply")
    page.keyboard.press("a")
    page.wait_for_selector("text=2 / 2 ターン目")
    home.stop(signal.SIGKILL)  # while the second turn is being drafted, or just was
    before, drafted = home.events("reply"), home.events("draft")
    journal = home.folder / "journal.jsonl"
    with journal.open("ab") as stream:
        stream.write(
            '{"do":"reply","id":"lunch","text":"半'.encode()[:-1]
        )  # as a crash in the middle of a write leaves it
    (home.folder / "accepted.jsonl").write_bytes(b"")
    home.start(*WITH_MODEL)
    assert home.events("reply") == before and len(before) == 2
    assert [row["id"] for row in home.rows()] == ["rain"], "the data are made of the journal"
    at(opened(page, home), "lunch", "reply")
    assert before[1]["text"] in page.inner_text(".said .assistant")
    assert home.events("draft")[: len(drafted)] == drafted
    page.keyboard.press("a")
    at(page, "open", "user")
    assert [row["id"] for row in home.rows()] == ["rain", "lunch"]
    page.close()


def test_ctrl_c_ends_it_and_a_second_process_is_refused(page, home):
    home.start("--by-hand", "--draw", "2", "--turns", "2")
    words, settings = home.command("--by-hand")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, **settings)
    assert done.returncode == 2 and f"running in another process, {home.process.pid}" in done.stderr
    at(opened(page, home), "drawn-00001", "user")
    page.fill("#context textarea", "夜の公園")
    page.fill("#user textarea", "ねえ")
    page.keyboard.press("Control+Enter")
    at(page, "drawn-00001", "reply")
    page.keyboard.type("なに？")
    page.keyboard.press("Control+Enter")
    at(page, "drawn-00001", "user")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    at(page, "drawn-00002", "user")
    page.goto("about:blank")
    said = home.stop(signal.SIGINT)
    assert "human 1" in said and "Traceback" not in said
    (row,) = home.rows()
    assert (row["context"], row["metadata"]["source"], len(row["conversation"])) == ("夜の公園", "human", 2)
    home.start("--by-hand", "--draw", "2")
    assert len(home.rows()) == 1 and len(home.events("scene")) == 3, "one more is drawn, so that two are open"


def test_of_two_pages_the_older_one_decides_nothing(page, home):
    home.start(*WITH_MODEL)
    at(opened(page, home), "rain", "reply")
    other = page.context.new_page()
    at(opened(other, home), "rain", "reply")
    page.keyboard.press("a")
    at(page, "lunch", "reply")
    other.keyboard.press("r")
    other.wait_for_selector("text=別の操作がありました")
    at(other, "lunch", "reply")
    assert len(home.events("reply")) == 1 and not home.events("reject")
    other.keyboard.press("r")
    at(other, "open", "user")
    assert len(home.events("reject")) == 1


def test_the_page_is_served_here_only_fits_and_names_no_other_machine(page, home):
    home.start("--by-hand", "--contexts", "scenes.yml")
    with pytest.raises(ConnectionRefusedError):  # where it listened on every address, it would answer here as well
        socket.create_connection(("127.0.0.2", home.port), timeout=5)
    url = f"http://127.0.0.1:{home.port}"
    html = urllib.request.urlopen(f"{url}/").read().decode()
    assert set(re.findall(r"https?://[^/\"'\s]+", html)) <= {url} and "Content-Security-Policy" in html
    asked = {"data": ["0", "", "はい", ""], "fn_index": 0, "session_hash": "abc"}
    strange = {"origin": "https://evil.example"}
    reply = httpx.post(f"{url}/gradio_api/queue/join", json=asked, headers=strange, trust_env=False)
    assert reply.status_code == 403
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        at(opened(page, home), "rain", "reply")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
