import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch

import serve
from recipekit import ROOT, persona_chat
from recipekit.dialogue_request import BodyMaker, Dialogue, Limits, context_of
from recipekit.errors import UserError
from recipekit.regressor import FILE, Regressor
from recipekit.serving import Service, Settings
from recipekit.task import load_task
from served import INTERVAL, LENGTH, TARGETS, Served, tiny_regressor

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLE = ROOT / "data" / "samples" / "bigfive" / "real_persona_chat"
TALK = {
    "speaker": "A",
    "utterances": [
        {"speaker": "A", "text": "花火大会に行きました。"},
        {"speaker": "B", "text": "いいですね。"},
        {"speaker": "A", "text": "山田さんも ｶﾒﾗを\n持って来ました。"},
    ],
}
SAID = "花火大会に行きました。\n山田さんも カメラを 持って来ました。"
LIMITS = Limits(size=20_000, dialogues=4, utterances=6, characters=300, seconds=1)


@pytest.fixture(scope="module")
def task():
    return load_task("bigfive")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_regressor(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def regressor(folder):
    return Regressor.load(folder)


@pytest.fixture(scope="module")
def served(task, folder):
    with Served(task, folder, Settings(queue=8, batch_size=4, limits=LIMITS)) as running:
        yield running


@pytest.fixture
def busy(served, monkeypatch):
    """The model of `served` reads on only once this is set."""
    free = threading.Event()
    predict = served.service.regressor.predict
    monkeypatch.setattr(served.service.regressor, "predict", lambda *a, **k: free.wait(20) and predict(*a, **k))
    yield free
    free.set()


def with_context(task, context):
    spec = json.loads(json.dumps(task.spec))
    next(one for one in spec["data"]["split"] if one["file"] == "real_persona_chat")["rows"]["context"] = context
    return replace(task, spec=spec)


def bodies(count):
    """Texts of unlike length, none like another."""
    return [f"{number}番の花火" + "山田太郎の海野" * (number % 7) for number in range(count)]


def waiting(service, count):
    """Wait until so many texts wait."""
    deadline = time.monotonic() + 20
    while len(service.batcher._waiting) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(service.batcher._waiting) == count


def test_an_answer_is_what_the_model_estimates(served, regressor, task):
    reply = served.client.post("/predict", json=TALK)
    answer = reply.json()
    assert reply.status_code == 200 and reply.headers["cache-control"] == "no-store"
    [values] = regressor.predict([SAID])
    assert list(answer) == ["speaker", "traits", "coverage", "tokens", "truncated"]
    assert (answer["speaker"], answer["coverage"], list(answer["traits"])) == ("A", 0.8, list(TARGETS))
    for value, (name, trait) in zip(values, answer["traits"].items(), strict=True):
        assert trait["value"] == pytest.approx(value, abs=1e-4)
        assert trait["low"] == pytest.approx(max(1, value - INTERVAL[name]), abs=1e-4)
        assert trait["high"] == pytest.approx(min(7, value + INTERVAL[name]), abs=1e-4)
        assert (trait["title"], trait["scale"]) == (task.targets[name]["title"], [1, 7])
    assert (answer["traits"]["agreeableness"]["low"], answer["traits"]["agreeableness"]["high"]) == (1, 7), "clipped"
    assert np.ptp(values) > 0.1


def test_tokens_are_counted_and_what_is_not_read_is_told(served, regressor):
    for text in ("花" * (LENGTH - 2), "花" * (LENGTH - 1)):
        answer = served.client.post("/predict", json={"body": text}).json()
        assert answer["tokens"] == len(regressor.tokenizer(text)["input_ids"]) == len(text) + 2
        assert answer["truncated"] == (len(text) + 2 > LENGTH) and answer["speaker"] is None
    assert served.values({"body": "花" * 200}) == pytest.approx(regressor.predict(["花" * LENGTH])[0], abs=1e-4)


@pytest.mark.parametrize("context", ["none", "partner"])
def test_a_dialogue_becomes_what_its_training_row_holds(task, context):
    own = with_context(task, context)
    label = next(one for one in task.spec["data"]["split"] if one["file"] == "real_persona_chat")["rows"]["label"]
    corpus = persona_chat.read(SAMPLE, label, {})
    parts = dict.fromkeys(corpus.labels, "train")
    rows = {row["id"]: row["body"] for row in persona_chat.rows(corpus, parts, ["train"], context, "speaker")}
    maker = BodyMaker(own, Limits())
    raw = [json.loads(line) for line in (SAMPLE / "dialogues.jsonl").open(encoding="utf-8")]
    made = 0
    for found in raw[:40]:
        utterances = [{"speaker": u["interlocutor_id"], "text": u["text"]} for u in found["utterances"]]
        for speaker in found["interlocutors"]:
            spoken = [u for u in utterances if u["text"].strip()]
            request = Dialogue.model_validate({"speaker": speaker, "utterances": spoken})
            wanted = own.clean(rows[f"{str(found['dialogue_id']).zfill(5)}-{speaker}"])
            assert maker.bodies([request], batch=False) == [wanted]
            made += 1
    assert made == 80 and context_of(own) == context


def test_special_tokens_in_a_text_are_plain_text(served, regressor, task):
    text = "花火</s></s>大会"
    assert task.clean(text) != text
    assert served.values({"body": text}) == pytest.approx(regressor.predict([task.clean(text)])[0], abs=1e-4)


def test_a_batch_is_answered_in_its_order(served, regressor):
    texts = bodies(4)
    reply = served.client.post("/predict/batch", json={"dialogues": [{"body": text} for text in texts]})
    values = [[trait["value"] for trait in answer["traits"].values()] for answer in reply.json()["answers"]]
    assert values == pytest.approx(regressor.predict(texts), abs=1e-4)


def test_under_load_values_are_those_of_one_by_one(task, folder, regressor, monkeypatch):
    texts = bodies(60)
    wanted = [regressor.predict([text])[0] for text in texts]
    with Served(task, folder, Settings(batch_size=16, wait=0.02)) as running:
        sizes = []
        read = running.service.batcher._read
        monkeypatch.setattr(running.service.batcher, "_read", lambda texts: sizes.append(len(texts)) or read(texts))
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda text: running.values({"body": text}), texts))
    assert found == pytest.approx(np.array(wanted), abs=2e-4)
    assert sum(sizes) == 60 and 4 < max(sizes) <= 16


def test_others_are_answered_while_the_model_reads(served, busy):
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(served.values, TALK)
        time.sleep(0.1)
        assert served.client.get("/health", timeout=5).json()["ready"] and not under_way.done()
        busy.set()
        assert len(under_way.result()) == 5


def test_a_full_queue_is_told_and_empties(served, busy):
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(served.values, {"body": "花"})
        time.sleep(0.3)  # it is being read
        others = [pool.submit(served.values, {"body": text}) for text in bodies(6)]
        waiting(served.service, 6)
        batch = {"dialogues": [{"body": text} for text in bodies(3)]}
        refused = served.client.post("/predict/batch", json=batch)
        assert refused.status_code == 503 and 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["problems"][0].startswith("queue: full; send the request again in")
        waiting(served.service, 6)  # none of the refused ones
        others += [pool.submit(served.values, {"body": text}) for text in bodies(2)]
        waiting(served.service, 8)
        assert served.client.post("/predict", json=TALK).status_code == 503
        busy.set()
        assert all(len(one.result()) == 5 for one in [first, *others])
    assert served.client.post("/predict", json=TALK).status_code == 200


def test_what_fails_inside_is_told_without_its_words(served, monkeypatch, caplog):
    def fail(texts, **_):
        raise RuntimeError(f"秘密 {texts}")

    monkeypatch.setattr(served.service.regressor, "predict", fail)
    reply = served.client.post("/predict", json=TALK)
    assert reply.status_code == 500 and reply.json() == {"problems": ["the server failed; its log says where"]}
    assert "RuntimeError in fail" in caplog.text and "花火" not in caplog.text and "秘密" not in caplog.text
    monkeypatch.undo()
    assert served.client.post("/predict", json=TALK).status_code == 200


def talk(**changes):
    return {**TALK, **changes}


def utterance(**changes):
    return talk(utterances=[*TALK["utterances"], {"speaker": "A", "text": "海", **changes}])


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "body: neither body nor utterances is there; send utterances and speaker, or body"),
        ({"speaker": "A"}, "body: neither"),
        ({"body": ""}, "body: empty, expected a text"),
        ({"body": " \n　"}, "body: empty, expected a text"),
        ({"body": 3}, "body: found a number; it should be a valid string"),
        ({"body": None}, "body: neither"),
        ({"body": "花" * 301}, "body: found 301 characters, expected at most 300"),
        ({"body": "花", "speaker": ""}, "speaker: empty, expected a name"),
        ({"body": "花", "speaker": "A" * 101}, "speaker: found 101 characters, expected at most 100"),
        (talk(body="花"), "body: found beside utterances"),
        (talk(mood="good"), "mood: unknown key"),
        (talk(speaker="C"), "speaker: 'C' says nothing, expected 'A' or 'B'"),
        (talk(speaker=None), "speaker: not there, expected 'A' or 'B'"),
        (talk(speaker=["A"]), "speaker: found an array; it should be a valid string"),
        (talk(utterances=[]), "utterances: found 0, expected 1 to 6"),
        (talk(utterances={}), "utterances: found an object; it should be a valid list"),
        (talk(utterances="花"), "utterances: found a string"),
        (talk(utterances=[None]), "utterances[0]: found null"),
        (talk(utterances=TALK["utterances"] * 3), "utterances: found 9, expected 1 to 6"),
        (utterance(text=""), "utterances[3].text: empty, expected a text; leave the utterance out"),
        (utterance(text=" "), "utterances[3].text: empty"),
        (utterance(text=None), "utterances[3].text: found null"),
        (utterance(text=True), "utterances[3].text: found a boolean"),
        (utterance(speaker=""), "utterances[3].speaker: empty"),
        (utterance(speaker="C"), "utterances: found 3 speakers, expected two"),
        (utterance(time=1), "utterances[3].time: unknown key"),
        (utterance(text="花" * 300), "utterances: found 336 characters, expected at most 300"),
        (talk(utterances=[{"speaker": "A"}]), "utterances[0].text: not there; add it"),
        ([], "request: found an array"),
        ("花", "request: found a string"),
    ],
)
def test_a_wrong_request_is_refused_with_what_to_do(served, request_, problem):
    reply = served.client.post("/predict", json=request_)
    assert reply.status_code == 422, reply.text
    assert any(one.startswith(problem) for one in reply.json()["problems"]), reply.json()
    assert all("; " in one for one in reply.json()["problems"]), "each says what to do"


@pytest.mark.parametrize(
    ("content", "status", "problem"),
    [
        (b"", 422, "request: nothing was sent; send JSON"),
        (b"{", 400, "request: not valid JSON, at character 1; mend it"),
        (b'{"body": "\xff"}', 400, "request: no JSON that can be read"),
        (b'{"body": NaN}', 422, "body: found a number; it should be a valid string"),
        (b'{"body": Infinity}', 422, "body: found a number"),
        (b'{"body": "\\ud800"}', 422, "body: half of a surrogate pair"),
        (b'{"body": "\\u0000"}', 200, None),
        (b"[" * 10_000, 400, "request: no"),
        (b"null", 422, "request: found null"),
        (b'{"body": "a", "speaker": "\\udfff"}', 422, "speaker: half of a surrogate pair"),
        (b'{"\\ud800": 1, "body": "a"}', 422, "request: half of a surrogate pair"),
        (b'{"' + b"k" * 5_000 + b'": 1}', 422, "k" * 80 + "...: unknown key"),
        (b'{"body": "a", "body": "' + b"1" * 5_000 + b'"}', 422, "body: found 5,000 characters"),
        (b'{"body": ' + b"1" * 5_000 + b"}", 400, "request: no JSON that can be read"),
    ],
)
def test_malformed_json_is_refused(served, content, status, problem):
    reply = served.client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert problem is None or reply.json()["problems"][0].startswith(problem)


def test_all_problems_of_a_batch_are_told_at_once(served):
    wrong = [{"body": ""}, {"body": "花"}, talk(speaker="C"), utterance(text="")]
    problems = served.client.post("/predict/batch", json={"dialogues": wrong}).json()["problems"]
    starts = ("dialogues[0].body: empty", "dialogues[2].speaker: 'C'", "dialogues[3].utterances[3].text: empty")
    assert len(problems) == 3 and all(map(str.startswith, problems, starts))
    many = served.client.post("/predict/batch", json={"dialogues": [1] * 100}).json()["problems"]
    assert len(many) == 21 and many[-1] == "and 80 more"
    for count in (0, 5):
        reply = served.client.post("/predict/batch", json={"dialogues": [{"body": "花"}] * count})
        assert reply.status_code == 422
        assert reply.json()["problems"] == [f"dialogues: found {count}, expected 1 to 4; send several requests"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [20_001, 200_000, 3_000_000])
def test_too_many_bytes_are_refused(served, size, chunked):
    content = b" " * size
    chunks = (content[start : start + 50_000] for start in range(0, size, 50_000))
    try:
        reply = served.client.post(
            "/predict", content=chunks if chunked else content, headers={"content-type": "application/json"}
        )
    except httpx.WriteError:  # it sent on and on
        assert size == 3_000_000
        return
    assert reply.status_code == 413
    assert reply.json()["problems"] == ["request: more than 20,000 bytes; send less, or several requests"]


def test_other_content_other_methods_and_paths_are_refused(served):
    client = served.client
    reply = client.post("/predict", content=json.dumps(TALK), headers={"content-type": "text/plain"})
    assert reply.status_code == 415 and "expected 'application/json'" in reply.json()["problems"][0]
    assert client.post("/predict", data={"body": "花"}).status_code == 415
    assert client.get("/predict").status_code == 405 and "POST" in client.get("/predict").json()["problems"][0]
    assert (
        client.get("/nothing").status_code == 404 and "/predict/batch" in client.get("/nothing").json()["problems"][0]
    )
    for path in ("/docs", "/redoc"):  # their scripts are another machine's
        assert client.get(path).status_code == 404


def ask_raw(port, head, body=b"", end=False):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline().decode()


def test_a_request_that_never_ends_is_given_up(served):
    head = "POST /predict HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 100"
    started = time.monotonic()
    assert " 408 " in ask_raw(served.port, head, b'{"body"')
    assert 0.9 < time.monotonic() - started < 8
    ask_raw(served.port, head, b'{"body"', end=True)
    assert served.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://{own}"}, 200),
        ({"origin": "http://{own}", "sec-fetch-site": "same-origin"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "192.0.2.1"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "localhost:9"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "[::1]:9"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(served, headers, status):
    own = {name: value.format(own=f"127.0.0.1:{served.port}") for name, value in headers.items()}
    reply = served.client.post("/predict", json=TALK, headers=own)
    assert reply.status_code == status, reply.text
    assert "access-control-allow-origin" not in reply.headers
    if "host" in headers:
        assert served.client.get("/health", headers=own).status_code == status
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert served.client.options("/predict", headers=asked).status_code == 403


def test_a_server_for_the_network_is_reached_by_addresses_and_its_names(task, folder):
    with Served(task, folder, Settings(host="0.0.0.0", names=["traits.example"])) as running:
        for host, status in {"192.0.2.1:80": 200, "traits.example": 200, "evil.example": 403}.items():
            assert running.client.get("/health", headers={"host": host}).status_code == status


def test_health_and_the_page_tell_what_is_served(served, folder, task):
    assert served.client.get("/health").json() == {
        "ready": True, "task": "bigfive", "model": folder.name, "targets": list(TARGETS), "device": "cpu",
        "version": "0.1.0",
    }  # fmt: skip
    page = served.client.get("/")
    assert page.status_code == 200 and task.title in page.text and "開放性" in page.text
    assert not re.search(r"https?://(?!127\.0\.0\.1)", page.text)
    assert {"/predict", "/predict/batch", "/health"} == set(served.client.get("/openapi.json").json()["paths"])


def test_without_intervals_there_are_none(task, tmp_path):
    with Served(task, tiny_regressor(tmp_path, {}), Settings()) as running:
        answer = running.client.post("/predict", json={"body": "花"}).json()
    ends = {trait[end] for trait in answer["traits"].values() for end in ("low", "high")}
    assert answer["coverage"] is None and ends == {None}


def test_a_task_without_dialogues_takes_texts_alone(task, folder):
    spec = json.loads(json.dumps(task.spec))
    del spec["data"]["split"]
    with Served(replace(task, spec=spec), folder, Settings()) as running:
        assert len(running.values({"body": "花"})) == 5
        problems = running.client.post("/predict", json=TALK).json()["problems"]
    assert problems == ["utterances: bigfive estimates from texts, not from dialogues; send body"]


def test_a_model_that_gives_no_numbers_is_not_served(task, folder, monkeypatch):
    predict = Regressor.predict
    monkeypatch.setattr(Regressor, "predict", lambda *a, **k: predict(*a, **k) * np.nan)
    with pytest.raises(UserError, match="no finite numbers"):
        Service(task, folder, Settings())


def test_a_request_under_way_is_answered_before_the_end(task, folder):
    with Served(task, folder, Settings(wait=1)) as running, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(running.values, TALK)
        waiting(running.service, 1)
        running.server.should_exit = True
        assert len(under_way.result()) == 5
        running.thread.join(20)
        with pytest.raises(httpx.ConnectError):
            running.client.get("/health")


@pytest.mark.parametrize(
    ("task", "model", "queue", "message"),
    [
        ("hawks", None, 64, "hawks: its answers are texts"),
        ("bigfive", "nowhere", 64, "nowhere: no such folder; expected a model"),
        ("bigfive", "data/samples/base", 64, f"data/samples/base/{FILE}: no such file"),
        ("bigfive", None, 63, "--queue: found 63, expected at least 64"),
    ],
)
def test_what_cannot_be_served_is_refused(task, model, queue, message):
    with pytest.raises(UserError, match=f"^{message}"):
        serve.check(load_task(task), ROOT / (model or "nowhere"), queue, 64)


def test_a_taken_port_and_another_machines_address_are_refused():
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        pytest.raises(UserError, serve.listen, "127.0.0.1", port).match(rf"127.0.0.1:{port}: .*in use.*--port")
    for host in ("192.0.2.1", "nowhere.invalid", "2001:db8::1"):
        with pytest.raises(UserError, match=f"{host}:8000: .*--host"):
            serve.listen(host, 8000)


def test_threads_are_bounded(monkeypatch, task, folder):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert serve.default_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert serve.default_threads() == 3
    found = []
    predict = Regressor.predict
    monkeypatch.setattr(Regressor, "predict", lambda *a, **k: found.append(torch.get_num_threads()) or predict(*a, **k))
    Service(task, folder, Settings(threads=2)).batcher.close()
    assert found == [2]


def test_answers_leave_at_once():
    with serve.listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_answers_what_is_under_way_and_keeps_nothing(folder, stop):
    tool = [sys.executable, str(ROOT / "tools" / "serve.py"), "bigfive", "--model", str(folder), "--port", "0"]
    server = subprocess.Popen(
        [*tool, "--wait-ms", "1500"], env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        url = next(line.split()[1] for line in server.stdout if line.startswith("serve: http://127.0.0.1:"))
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client, ThreadPoolExecutor(1) as pool:
            assert client.post("/predict", json={"body": ["秘密坂"]}).status_code == 422
            under_way = pool.submit(client.post, "/predict", json={"body": "秘密坂の花火"})
            time.sleep(0.5)
            server.send_signal(stop)
            assert under_way.result().status_code == 200
        assert server.wait(20) == 0
        assert server.stdout.read() == "serve: stopped, all requests are answered\n"
    finally:
        server.kill()


@pytest.mark.slow
def test_the_command_refuses_in_lines_and_exit_2(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "serve.py"), "bigfive", "--model", "nowhere"]
    done = subprocess.run(tool, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "nowhere: no such folder" in done.stderr and "Traceback" not in done.stderr
