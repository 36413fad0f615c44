import json
import random
import subprocess
import sys
from pathlib import Path

import jsonschema
import orjson
import pytest
import torch

import predict
from recipekit import ROOT, segments
from recipekit.decoding import Grammar, Row, context_length, generate
from recipekit.errors import UserError
from recipekit.inputs import read_articles
from recipekit.predictor import LocalPredictor, check
from recipekit.task import load_task
from tiny import TEXT, tiny_adapter, tiny_base, tiny_model, tiny_tokenizer

EOS = 2
TEXTS = {"type": "string", "maxLength": 6}
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["persons", "places"],
    "properties": {
        "persons": {
            "type": "array", "maxItems": 2,
            "items": {
                "type": "object", "additionalProperties": False, "required": ["name", "real", "kind"],
                "properties": {"name": TEXTS, "real": {"type": "boolean"}, "kind": {"enum": ["法令違反", "過失"]}},
            },
        },
        "places": {"type": "array", "maxItems": 2, "items": TEXTS},
        "more": TEXTS,
    },
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def task(mini, base):
    """The mini task with a small schema and eight articles to predict."""
    path = mini / "recipes" / "mini" / "task.yml"
    spec = path.read_text(encoding="utf-8").split("output_schema:")[0]
    gold = "gold: {id: id, separator: '|', columns: {person_name: {path: 'persons[].name', compare: text}}}\n"
    schema = f"output_schema: {json.dumps(SCHEMA)}\n"
    path.write_text(f"{spec}predict: {{max_new_tokens: 200}}\n{schema}{gold}", encoding="utf-8")
    (mini / "data" / "test").mkdir()
    articles = [{"id": f"E{i}", "body": "山田太郎容疑者を逮捕。"[: i + 3] * (i % 3 + 1)} for i in range(8)]
    write(mini / "data" / "test" / "eval.jsonl", articles)
    return load_task("mini", mini)


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def options(task, base, **values):
    folder = task.root / "outputs"
    return predict.Options(**{"model": base, "adapter": None, "input": task.test_path("input"),
                              "output": folder / "p.jsonl", "batch_size": 3, **values})  # fmt: skip


def run(task, options, name="run"):
    return predict.predict(task, options, read_articles(options.input)[0], name)


def decode(model, prompts, grammar, batch_size, most=120):
    found = list(generate(model, prompts, grammar, eos=EOS, max_new_tokens=most, batch_size=batch_size))
    assert len(found) == len(prompts)
    return {one.index: (one.ids, one.finished) for one in found}


@pytest.mark.parametrize("sentencepiece", [False, True])
@pytest.mark.parametrize("shared", ["<s>抽出する。", ""])
@pytest.mark.parametrize("constrain", [True, False])
def test_batches_give_what_single_prompts_give(tmp_path, sentencepiece, shared, constrain):
    tokenizer = tiny_tokenizer(tmp_path, sentencepiece=sentencepiece)
    model = tiny_model(tmp_path)
    grammar = Grammar(tokenizer, SCHEMA, model.config.vocab_size, EOS) if constrain else None
    texts = [shared + text for text in ("山", "逮捕", "容疑者を逮捕。", "花火大会", "山田太郎" * 9, "海野", "大")]
    prompts = [segments.encode(tokenizer, [text, "記事"]) for text in texts]
    alone = decode(model, prompts, grammar, 1)
    assert alone == decode(model, prompts, grammar, 4) == decode(model, prompts, grammar, 7)
    assert len({tuple(ids) for ids, _ in alone.values()}) > 1
    ids = prompts[4] + alone[4][0]  # and what the model gives with no cache, no padding and no shared prefix
    free = model(torch.tensor([ids])).logits[0].argmax(1).tolist()
    assert constrain or free[len(prompts[4]) - 1 : -1] == alone[4][0]


def test_prompt_that_others_begin_with_is_read_to_its_end(base):
    tokenizer, model = tiny_tokenizer(base), tiny_model(base)
    prompts = [segments.encode(tokenizer, [text]) for text in ("<s>山", "<s>山田", "<s>山田太郎")]
    together = decode(model, prompts, None, 3, 20)
    assert together == {place: decode(model, [prompt], None, 1, 20)[0] for place, prompt in enumerate(prompts)}


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_constrained_answers_fit_the_schema_even_of_a_random_model(tmp_path, sentencepiece):
    tokenizer = tiny_tokenizer(tmp_path, sentencepiece=sentencepiece)
    for seed in range(6):
        model = tiny_model(tmp_path, seed)
        grammar = Grammar(tokenizer, SCHEMA, model.config.vocab_size, EOS)
        prompts = [segments.encode(tokenizer, [text]) for text in ("山", "逮捕", "容疑")]
        for ids, finished in decode(model, prompts, grammar, 3, 400).values():
            answer = orjson.loads(tokenizer.decode(ids))
            jsonschema.validate(answer, SCHEMA)
            assert finished and list(answer)[:2] == ["persons", "places"]
            assert tokenizer.decode(ids) == json.dumps(answer, ensure_ascii=False)


def random_answer(rng):
    def text():
        return "".join(rng.choice('山田鬱 😀"\\/\n\t\x01\x1fｱ１3a,:[]{}\u3000') for _ in range(rng.randrange(7)))

    kinds = rng.choices(["法令違反", "過失"], k=rng.randrange(3))
    persons = [{"name": text(), "real": rng.random() < 0.5, "kind": kind} for kind in kinds]
    answer = {"persons": persons, "places": [text() for _ in range(rng.randrange(3))]}
    return answer | ({"more": text()} if rng.random() < 0.3 else {})


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_grammar_permits_the_very_tokens_that_were_trained(tmp_path, sentencepiece):
    tokenizer = tiny_tokenizer(tmp_path, sentencepiece=sentencepiece)
    grammar = Grammar(tokenizer, SCHEMA, len(tokenizer) + 5, EOS)
    rng = random.Random(0)
    for _ in range(100):
        trained = segments.encode(tokenizer, [json.dumps(random_answer(rng), ensure_ascii=False) + "</s>"])
        assert tokenizer.convert_ids_to_tokens(trained[0]).startswith("▁") == sentencepiece
        row = Row(0, [], grammar.start(), 1000)
        while len(row.ids) < len(trained) - 1:
            assert row.ids == trained[: len(row.ids)], "what the schema forces is not what was trained"
            token = trained[len(row.ids)]
            assert grammar.allowed([row.matcher], len(tokenizer) + 5)[0, token]
            row.take(token, EOS)
        assert row.ids == trained[:-1] and row.finished


def test_grammar_permits_nothing_that_was_not_trained(tmp_path):
    tokenizer = tiny_tokenizer(tmp_path)
    matcher = Grammar(tokenizer, SCHEMA, len(tokenizer), EOS).start()
    wrong = ['{"persons":[', '{ "persons"', ' {"persons"', '{"places"', '{"persons": [1', '{"persons": [ ']
    for text in wrong:
        ids = segments.encode(tokenizer, [text])
        assert matcher.validate_tokens(ids) < len(ids), text
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    matcher = Grammar(tokenizer, schema, len(tokenizer), EOS).start()
    for text in ('{"a": "\\u5c71', '{"a": "\\/', '{"a": "\n'):
        ids = segments.encode(tokenizer, [text])
        assert matcher.validate_tokens(ids) < len(ids), text


def test_answer_cut_by_max_new_tokens_is_not_valid_and_keeps_its_text(task, base):
    task.spec["predict"]["max_new_tokens"] = 20
    rows = run(task, options(task, base))
    assert all(not row["valid"] and row["output"] is None and row["raw"].startswith('{"persons": [') for row in rows)


def test_without_constraint_the_model_writes_what_it_will(task, base):
    rows = run(task, options(task, base, constrain=False))
    assert not any(row["valid"] for row in rows) and all(row["raw"] for row in rows)


def test_prompt_has_the_ids_of_the_training_row(task, base, monkeypatch):
    tokenizer = tiny_tokenizer(base)
    articles, _ = read_articles(task.test_path("input"))
    seen = []
    monkeypatch.setattr("recipekit.decoding.generate", lambda model, prompts, *_, **__: seen.extend(prompts) or [])
    list(LocalPredictor.load(task, base).predict(articles))
    for article, prompt in zip(articles, seen, strict=True):
        ids, trained = segments.encode_row(tokenizer, segments.build(task, article.body, {"persons": []}))
        assert prompt == ids[: trained.index(True)]


def test_predictions_are_in_order_and_leave_no_partial_file(task, base):
    some = options(task, base)
    rows = run(task, some)
    assert [row["id"] for row in rows] == [f"E{i}" for i in range(8)]
    assert [orjson.loads(line) for line in some.output.read_bytes().splitlines()] == rows
    assert all(row["valid"] and row["output"] == json.loads(row["raw"]) for row in rows)
    assert list(some.output.parent.iterdir()) == [some.output]


def test_stopped_run_goes_on_and_ends_alike(task, base, monkeypatch):
    some = options(task, base)
    undisturbed = run(task, some)
    some.output.unlink()
    whole, decoded = predict.decode, []

    def stopped(*arguments):
        for number, row in enumerate(whole(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield row

    def counted(task, options, articles):
        decoded.extend(article.id for article in articles)
        return whole(task, options, articles)

    monkeypatch.setattr(predict, "decode", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(task, some)
    assert not some.output.exists()
    partial = some.output.with_name("p.jsonl.partial")
    partial.write_bytes(partial.read_bytes()[:-9])  # the fifth row is torn
    monkeypatch.setattr(predict, "decode", counted)
    again = run(task, some)
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in undisturbed]
    assert len(decoded) == 4


def test_partial_file_of_another_run_is_not_used(tmp_path):
    path = tmp_path / "p.partial"
    path.write_bytes(orjson.dumps({"run": "old"}) + b'\n{"id": "E0", "raw": "x"}\n')
    assert predict.read_partial(path, "new") == {}
    assert path.read_bytes() == orjson.dumps({"run": "new"}) + b"\n"


def test_run_depends_on_model_prompt_schema_and_input(task, base, tmp_path):
    def digests():
        return predict.runs.digest({k: predict.runs.digest(v) for k, v in predict.inputs(task, some).items()})

    other = tiny_base(tmp_path / "other", seed=1)
    some = options(task, base)
    found = [digests()]
    (task.dir / "system.txt").write_text("別の指示。\n", encoding="utf-8")
    found.append(digests())
    properties = task.output_schema["properties"]
    task.output_schema["properties"] = dict(reversed(properties.items()))
    found.append(digests())
    with some.input.open("a", encoding="utf-8") as stream:
        stream.write('{"id": "E9", "body": "x"}\n')
    found.append(digests())
    some = options(task, other)
    found.append(digests())
    assert len(set(found)) == 5


def test_adapter_is_put_on_its_base(task, base, tmp_path):
    adapter = tiny_adapter(tmp_path / "adapter", base)
    plain = run(task, options(task, base))
    tuned = run(task, options(task, None, adapter=adapter), "other")
    assert [row["raw"] for row in plain] != [row["raw"] for row in tuned]


def test_context_is_the_window_where_that_is_shorter(tmp_path):
    tiny_tokenizer(tmp_path)
    assert context_length(tiny_model(tmp_path).config) == 2048
    assert context_length(tiny_model(tmp_path, sliding_window=64).config) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no task 'nothing'"),
        (["hawks", "--model", "nowhere", "--output", "x.jsonl"], "nowhere: no such folder"),
        (["hawks", "--adapter", "nowhere", "--output", "x.jsonl"], "nowhere/adapter_config.json: no such file"),
        (["hawks", "--limit", "3"], "--output is missing"),
    ],
)
def test_command_line_errors_are_one_line_and_exit_2(tmp_path, arguments, message):
    command = [sys.executable, str(ROOT / "tools" / "predict.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(Path(tmp_path).iterdir())


def test_tiny_text_covers_the_prompt():
    assert set("抽出する。【記事】") <= set(TEXT)


def test_a_prompt_changed_since_training_stops_prediction(task):
    model = task.outputs / "merged"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "recipe.json").write_text(json.dumps({"prompt": task.prompt_digest()}))
    check(task, model, None)
    (task.dir / "system.txt").write_text("別の指示。\n", encoding="utf-8")
    with pytest.raises(UserError, match="trained with another prompt"):
        check(load_task("mini", task.root), model, None)
