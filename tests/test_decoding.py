import json
import random

import jsonschema
import orjson
import pytest
import torch

from predicting import SCHEMA
from recipekit import segments
from recipekit.decoding import Grammar, Row, context_length, generate
from tiny import TEXT, tiny_model, tiny_tokenizer

EOS = 2
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_context_is_the_window_where_that_is_shorter(tmp_path):
    tiny_tokenizer(tmp_path)
    assert context_length(tiny_model(tmp_path).config) == 2048
    assert context_length(tiny_model(tmp_path, sliding_window=64).config) == 64


def test_tiny_text_covers_the_prompt():
    assert set("抽出する。【記事】") <= set(TEXT)
