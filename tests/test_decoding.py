import json
import random

import jsonschema
import orjson
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from predicting import SCHEMA
from recipekit import segments
from recipekit.decoding import Grammar, Row, context_length, generate
from recipekit.task import load_task
from tiny import SPECIALS, TEXT, tiny_model, tiny_tokenizer

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


def refused(grammar, tokenizer, answer):
    """Return what of an answer, as training writes it, the grammar does not permit; None where it permits all."""
    ids = segments.encode(tokenizer, [TASK.answer(answer).removesuffix("</s>")])
    matcher = grammar.start()
    count = matcher.validate_tokens(ids)
    return tokenizer.convert_ids_to_tokens(ids[count : count + 3]) or None


TASK = load_task("hawks")
TEXT_SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["a"], "properties": {"a": {"type": "string"}},
}  # fmt: skip


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_grammar_permits_every_character_of_unicode(tmp_path, sentencepiece):
    tokenizer = tiny_tokenizer(tmp_path, sentencepiece=sentencepiece)
    grammar = Grammar(tokenizer, TEXT_SCHEMA, len(tokenizer), EOS)
    legal = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]  # no halves of surrogate pairs
    for start in range(0, len(legal), 512):
        assert refused(grammar, tokenizer, {"a": "".join(legal[start : start + 512])}) is None, hex(ord(legal[start]))


ODD = [*"\"\\/'`\x00\x01\t\n\r\x1f\x7f\x85\xa0\u200b\u2028\u2029\u3000\u3099か😀\ufeff\ufffe\uffff\ue000\U0010ffff"]


@settings(max_examples=300)
@given(st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=40))
def test_grammar_permits_any_text(spaced_grammar, text):
    grammar, tokenizer = spaced_grammar
    assume(not any(token in text for token in SPECIALS))  # which a tokenizer reads as these tokens, not as text
    assert refused(grammar, tokenizer, {"a": text}) is None
    ids = segments.encode(tokenizer, [TASK.answer({"a": text})])
    free = grammar.free(ids, EOS)  # what the schema forces is what was trained
    assert free and len(free) == len(ids) and sum(free) >= len(text)


@pytest.fixture(scope="module", params=[False, True])
def spaced_grammar(request, tmp_path_factory):
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("t"), sentencepiece=request.param)
    return Grammar(tokenizer, TEXT_SCHEMA, len(tokenizer), EOS), tokenizer


def test_half_a_surrogate_pair_cannot_be_written(spaced_grammar):
    grammar, tokenizer = spaced_grammar
    for wrong in (
        '{"a": "\\ud83d"}',
        '{"a": "\x01"}',
        '{"a": "\\u0061"}',
        '{"a": """}',
        '{"a": "\\x"}',
        '{"a": "\x7f"}',
    ):
        ids = segments.encode(tokenizer, [wrong])
        assert grammar.free(ids, EOS) is None, wrong


@torch.inference_mode()
@pytest.mark.parametrize("constrain", [True, False])
def test_prompts_of_thousands_of_tokens_are_decoded_as_without_a_cache(tmp_path, constrain):
    tokenizer = tiny_tokenizer(tmp_path)
    model = tiny_model(tmp_path, max_position_embeddings=8192)
    grammar = Grammar(tokenizer, SCHEMA, model.config.vocab_size, EOS) if constrain else None
    prompts = [segments.encode(tokenizer, ["<s>" + "山田太郎容疑者を逮捕。" * n]) for n in (450, 30, 451)]
    assert len(prompts[2]) > 4900
    for place, one in enumerate(sorted(decode_whole(model, prompts, grammar), key=lambda one: one.index)):
        whole = model(torch.tensor([prompts[place] + one.ids])).logits
        logits = whole[0, len(prompts[place]) - 1 : -1].log_softmax(1)
        own = logits.gather(1, torch.tensor(one.ids)[:, None])[:, 0]
        free = torch.tensor(grammar.free(one.ids, EOS) if grammar else [True] * len(one.ids))
        assert one.chosen == int(free.sum()) > 0
        assert one.logprob == pytest.approx(float(own[free].sum()), abs=1e-3)
        assert constrain or logits.argmax(1).tolist() == one.ids
        assert 0 < one.started <= one.ended


def decode_whole(model, prompts, grammar, most=60):
    return list(generate(model, prompts, grammar, eos=EOS, max_new_tokens=most, batch_size=3))


def test_eos_counts_as_chosen_and_what_the_schema_forces_does_not(tmp_path):
    tokenizer, schema = tiny_tokenizer(tmp_path), {"const": "山"}
    model = tiny_model(tmp_path)
    prompt = segments.encode(tokenizer, ["<s>山"])
    [one] = decode_whole(model, [prompt], Grammar(tokenizer, schema, model.config.vocab_size, EOS))
    assert (tokenizer.decode(one.ids), one.chosen, one.logprob, one.finished) == ('"山"', 0, 0.0, True)
    for seed in range(20):  # one that does not write the same token over and over
        model = tiny_model(tmp_path, seed)
        [free] = decode_whole(model, [prompt], None, most=9)
        assert free.chosen == 9
        place = next((i for i, token in enumerate(free.ids) if i and token not in free.ids[:i]), 0)
        if place:
            break
    [ended] = generate(model, [prompt], None, eos=free.ids[place], max_new_tokens=9, batch_size=1)
    assert (ended.ids, ended.chosen, ended.finished) == (free.ids[:place], place + 1, True)
    assert ended.logprob < 0


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
