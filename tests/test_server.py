from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import orjson
import pytest

import predict
from openai_server import KEY, Server
from predicting import options, run, without_time, write
from recipekit import ROOT, endpoint, models, segments
from recipekit.errors import UserError
from recipekit.hub import masked
from recipekit.inputs import read_articles
from recipekit.predictor import LocalPredictor
from recipekit.server import ServerPredictor
from recipekit.task import load_task
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread", "key")


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def served(base):
    with Server(str(base)) as running:
        yield running


def same(ours, theirs):
    """Rows are the same but for time, and log-probabilities but for rounding."""
    for row, other in zip(ours, sorted(theirs, key=lambda row: row["id"]), strict=True):
        assert without_time(row) | {"mean_logprob": 0} == without_time(other) | {"mean_logprob": 0}
        assert row["mean_logprob"] == pytest.approx(other["mean_logprob"], abs=2e-3)
    return True


@pytest.mark.parametrize("prompt_as", ["ids", "text"])
@pytest.mark.parametrize("constrain", [True, False])
def test_rows_are_those_of_the_local_model(small_task, base, served, prompt_as, constrain):
    articles, _ = read_articles(small_task.test_path("input"))
    predictor = ServerPredictor(small_task, served.url, model=base, prompt_as=prompt_as, constrain=constrain)
    theirs = list(predictor.predict(articles))
    ours = sorted(
        LocalPredictor.load(small_task, base, constrain=constrain).predict(articles), key=lambda row: row["id"]
    )
    assert same(ours, theirs) and len(ours) == 8 and all(row["tokens"] for row in ours)
    request = served.app.state.requests[-1]
    assert isinstance(request["prompt"], list if prompt_as == "ids" else str) and request["temperature"] == 0
    if constrain:
        assert request["structured_outputs"]["json"] == request["response_format"]["json_schema"]["schema"]
        assert all(row["valid"] for row in theirs)


def test_ids_sent_are_those_of_the_training_row(small_task, base, served):
    articles, _ = read_articles(small_task.test_path("input"))
    served.app.state.requests.clear()
    list(ServerPredictor(small_task, served.url, model=base, concurrency=1).predict(articles))
    tokenizer = models.load_tokenizer(base)
    for article, request in zip(articles, served.app.state.requests, strict=True):
        ids, trained = segments.encode_row(tokenizer, segments.build(small_task, article.body, {"persons": []}))
        assert request["prompt"] == ids[: trained.index(True)]


def test_text_of_which_other_ids_would_be_made_is_refused(small_task, tmp_path, served):
    tiny_tokenizer(tmp_path / "sp", sentencepiece=True)
    tiny_model(tmp_path / "sp")
    (small_task.dir / "article.txt").write_text("{記事}{{ body }}", encoding="utf-8")
    task = load_task("mini", small_task.root)
    predictor = ServerPredictor(task, served.url, model=tmp_path / "sp", prompt_as="text")
    ids = segments.encode(predictor.tokenizer, task.prompt("山田"))
    joined = segments.encode(predictor.tokenizer, ["".join(task.prompt("山田"))])
    assert ids != joined
    text = predictor._prompt(ids)  # the spaces that the tokenizer puts before segments are written out
    assert [1, *segments.encode(predictor.tokenizer, [text])] == ids and " " in text
    with pytest.raises(UserError, match="--prompt-as ids"):
        predictor._prompt([1, *segments.encode(predictor.tokenizer, ["山"]), *ids[1:3], 64 + 4, 65 + 4])


def test_a_server_without_ids_or_logprobs_leaves_the_mean_out(small_task, base, served, monkeypatch):
    whole = ServerPredictor._ask

    def poorer(self, prompt):
        choice, *times = whole(self, prompt)
        choice.token_ids = None
        return choice, *times

    monkeypatch.setattr(ServerPredictor, "_ask", poorer)
    articles, _ = read_articles(small_task.test_path("input"))
    rows = list(ServerPredictor(small_task, served.url, model=base).predict(articles))
    assert all(row["valid"] and row["mean_logprob"] is None and row["tokens"] == 0 for row in rows)


def test_a_server_that_fails_midway_keeps_what_is_done_and_goes_on(small_task, base, served):
    write(small_task.test_path("input"), [{"id": f"E{n:02}", "body": f"山田{n}容疑者。"} for n in range(40)])
    with Server(str(base), fail_after=5) as failing:
        some = options(small_task, base, server=failing.url, concurrency=2)
        with pytest.raises(UserError, match="the engine is dead") as error:
            run(small_task, some)
        assert "refused the request" in str(error.value)
        assert len(failing.app.state.requests) < 40, "the others are not asked for"
    partial = some.output.with_name(some.output.name + ".partial")
    assert partial.read_bytes().count(b"\n") == 1 + 5 and not some.output.exists()
    before = len(served.app.state.requests)
    rows = run(small_task, options(small_task, base, server=served.url))
    assert len(served.app.state.requests) == before + 35
    local = run(small_task, options(small_task, base, output=some.output.with_name("local.jsonl")))
    assert same(local, rows)


def test_what_is_wrong_with_a_server_is_said_in_a_line(small_task, base, served, monkeypatch):
    def message(url, **values):
        with pytest.raises(UserError) as error:
            ServerPredictor(small_task, url, model=base, **values)
        return str(error.value)

    assert "serves 'big'" in message(served.url, served="big").replace("does not serve", "serves")
    assert "404" in message(served.url.removesuffix("/v1")) and "ends in /v1" in message(served.url[:-3])
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    assert "no server answers there" in message("http://127.0.0.1:1/v1")
    with Server(str(base), names=("a", "b")) as two:
        assert "serves a, b; name one" in message(two.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    assert "401" in message(served.url) and "sk-wrong" not in message(served.url)


@contextmanager
def replying(content):
    """A server that says 200 and the same to all."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if content.startswith(b"<") else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()


OTHER = "no OpenAI-compatible server answers there"


@pytest.mark.parametrize(
    ("content", "listing", "answering"),
    [
        (b"<html>Sign in</html>", OTHER, OTHER),
        (b"[]", OTHER, OTHER),
        (b'{"data": [', OTHER, OTHER),
        (b'{"data": [{"name": "x"}], "choices": ["x"]}', OTHER, OTHER),
        (b'{"data": [1], "choices": [null]}', OTHER, OTHER),
        (b'{"detail": "x"}', "serves none", "no answer in it"),
        (b'{"data": [], "choices": [{"text": null}]}', "serves none", "no answer in it"),
    ],
)
def test_another_program_at_the_port_is_told_from_a_server(small_task, base, served, content, listing, answering):
    predictor = ServerPredictor(small_task, served.url, model=base)
    with replying(content) as url:
        with pytest.raises(UserError, match=f"{url}.*{listing}|{listing}.*{url}"):
            ServerPredictor(small_task, url, model=base)
        predictor.client.base_url = url
        with pytest.raises(UserError, match=answering):
            predictor._ask([1])


def test_log_probabilities_that_a_server_leaves_out_are_not_known(small_task, base, served):
    predictor = ServerPredictor(small_task, served.url, model=base, constrain=False)
    assert predictor._logprob([-1.0, -0.5], None) == (-1.5, 2)
    assert predictor._logprob([None, -0.5], None) == (None, 0)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://h:80x/v1", "ftp://h/v1", "http://", "", "http://u:SEC/RET@h/"]
)
def test_what_is_no_url_is_refused(small_task, base, url):
    with pytest.raises(UserError, match="--server: .* is no URL like") as error:
        ServerPredictor(small_task, url, model=base)
    assert "SEC" not in str(error.value)


def test_a_password_in_the_url_is_not_shown(small_task, base, served, monkeypatch, caplog):
    monkeypatch.setattr(endpoint, "RETRIES", 0)

    def message(url, **values):
        with pytest.raises(UserError) as error:
            ServerPredictor(small_task, url.replace("//", "//user:SECRET@"), model=base, **values)
        return str(error.value)

    with replying(b'{"object": "list", "data": [{"id": "a"}, {"id": "b"}]}') as two, replying(b"[]") as other:
        found = [message("http://127.0.0.1:1/v1"), message(served.url), message(two), message(other)]
        found.append(message(two, served="c"))
    assert all("//***@127.0.0.1" in one for one in found) and "SECRET" not in "".join(found) + caplog.text
    assert masked("https://host:8000/v1") == "https://host:8000/v1"
    assert masked("http://a:b@c@host/v1") == "http://***@host/v1" and masked("a:b@host") == "***@host"


def test_the_key_stands_in_no_file(small_task, base, served):
    some = options(small_task, base, server=served.url)
    run(small_task, some)
    assert KEY.encode() not in some.output.read_bytes()
    assert KEY not in orjson.dumps(predict.inputs(small_task, some, []), default=str).decode()


@pytest.mark.slow
def test_a_trained_model_behind_a_server_answers_as_here():
    task, folder = load_task("hawks"), ROOT / "data" / "samples" / "base"
    articles, _ = read_articles(ROOT / "data" / "samples" / "hawks" / "hawks_eval_input.jsonl")
    with Server(str(folder)) as running:
        theirs = list(ServerPredictor(task, running.url, model=folder).predict(articles[:40]))
    ours = sorted(LocalPredictor.load(task, folder).predict(articles[:40]), key=lambda row: row["id"])
    assert same(ours, theirs) and all(row["valid"] for row in theirs)
