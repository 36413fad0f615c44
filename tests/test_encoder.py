"""The small encoder: its tokenizer, its masked text that goes on from any step, and its product."""

import json
import random
import re

import orjson
import pytest
import torch

import make_encoder
from recipekit import ROOT, invented_ogiri, invented_people, yamlfile
from recipekit.encoder_corpus import CHUNK, Batches, Corpus, Row, Text
from recipekit.encoder_model import build_model, build_tokenizer

ENCODER, SAMPLE = ROOT / "data/samples/encoder", ROOT / "data/samples/bigfive"
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def recipe():
    return yamlfile.load(ROOT / "recipes/encoder/encoder.yml")[0]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ENCODER)


@pytest.fixture(scope="module")
def corpus(recipe):
    people = invented_people.read(SAMPLE / "source")
    humour = invented_ogiri.read(make_encoder.HUMOUR)
    return Corpus(recipe, people, yamlfile.load(ROOT / "recipes/base/corpus.yml")[0], humour, ["記事の本文"])


@pytest.fixture(scope="module")
def batches(recipe, corpus, tokenizer):
    return Batches(recipe, corpus, tokenizer)


def test_the_bundled_tokenizer_is_the_one_that_is_built(tokenizer, recipe):
    built = build_tokenizer(make_encoder.BASE, recipe["architecture"]["max_position_embeddings"] - 2)
    assert tokenizer.backend_tokenizer.to_str() == built.backend_tokenizer.to_str()
    assert tokenizer.model_max_length == built.model_max_length == 1024


def test_tokenizer_is_lossless(tokenizer):
    rng = random.Random(0)
    texts = ["  a \n\n b ", "髙﨑𠮷野家", "ﾊﾝｶｸ１２〜♪", "が\u3099é\r\n\t", "<XX>さん", "", " "]
    texts += ["".join(chr(rng.choice([rng.randint(0x20, 0x9FFF), rng.randint(0xE000, 0x1F9FF)])) for _ in range(60))]
    for text in texts:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_special_tokens_and_templates_are_those_of_xlm_r(tokenizer):
    specials = {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2, "unk": 3, "mask": len(tokenizer) - 1}
    assert {name: getattr(tokenizer, f"{name}_token_id") for name in specials} == specials
    assert tokenizer.convert_ids_to_tokens(tokenizer("あ").input_ids) == ["<s>", "あ", "</s>"]
    pair = tokenizer("あ", "い<mask>")
    assert tokenizer.convert_ids_to_tokens(pair.input_ids) == ["<s>", "あ", "</s>", "</s>", "い", "<mask>", "</s>"]
    assert pair.token_type_ids == [0, 0, 0, 1, 1, 1, 1] and not any(tokenizer("あ").token_type_ids)
    assert set(pair) == {"input_ids", "token_type_ids", "attention_mask"}
    assert len(tokenizer("あ" * 2000, truncation=True).input_ids) == 1024


def test_first_weights_look_at_the_neighbours(recipe, tokenizer):
    model = build_model(recipe["architecture"], tokenizer, 0, recipe["summary"]["buckets"]).eval()
    model.set_attn_implementation("eager")
    batch = tokenizer("今日は友達と話した。\n楽しかったです" * 20, return_tensors="pt")
    with torch.no_grad():
        attention = model.roberta(**batch, output_attentions=True).attentions[0][0]
    for head, offset in enumerate((1, -1, 2, -2)):
        assert attention[head].diagonal(offset).mean() > 0.9


def test_first_weights_tell_which_tokens_two_texts_share(recipe, tokenizer):
    model = build_model(recipe["architecture"], tokenizer, 0, recipe["summary"]["buckets"]).eval()
    model.set_attn_implementation("eager")
    shared, other = "電池", "恐竜"
    first, second = f"この{shared}は仲が良い。その理由とは", f"{shared}と{other}が手をつなぐ"
    batch = tokenizer(first, second, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(batch.input_ids[0])
    with torch.no_grad():
        found = model.roberta(**batch, output_attentions=True, output_hidden_states=True)
    start = len(first) + 3
    places = {text: [start + second.index(text) + i for i in range(2)] for text in (shared, other)}
    wanted = [1 + first.index(shared) + i for i in range(2)]
    assert [tokens[place] for place in places[shared]] == [tokens[place] for place in wanted] == [*shared]
    for head in range(2):
        attention = found.attentions[1][0, head]
        assert attention[places[shared], wanted].min() > 0.5, "at the same token of the first text"
        assert attention[places[other], 0].min() > 0.4, "at <s>, for the first text lacks it"
    told = found.hidden_states[2][0, :, 2]
    assert told[places[shared]].min() > told[places[other]].max()


def test_corpus_is_of_every_kind_and_holds_no_row_of_the_sample(corpus, recipe):
    texts = corpus.texts(random.Random("0"))
    found = [next(texts) for _ in range(800)]
    pairs = [text for text in found if text.pair]
    assert 480 < len(pairs) < 640 and 0.4 < sum(text.fits for text in pairs) / len(pairs) < 0.6
    rows = [row for rows in invented_ogiri.sample(corpus.humour).values() for row in rows]
    assert not {row.odai.body for row in rows} & {text.body for text in pairs}
    assert not {row.answer.text for row in rows if row.answer.relates} & {text.pair for text in pairs}
    drawn = [text.body for text in found if not text.pair]
    kinds = ("<XX>", "相手: ", "本文", "仕事", "歳の")
    assert all(any(kind in text for text in drawn) for kind in kinds)
    assert not any(re.search("<(?!XX>)", text) for text in drawn if "{" not in text)  # notices show a form
    dialogues = map(json.loads, (SAMPLE / "real_persona_chat/dialogues.jsonl").read_text(encoding="utf-8").splitlines())
    said = set()
    for row in dialogues:
        for name in row["interlocutors"]:
            lines = [one["text"] for one in row["utterances"] if one["interlocutor_id"] == name]
            said.add(re.sub("<[A-Z]+>", "<XX>", "\n".join(lines[2:5])))
    assert not any("\n".join(text.split("\n")[2:5]) in said for text in drawn)
    personas = (SAMPLE / "nemotron_personas_japan/personas.jsonl").read_bytes().splitlines()
    assert not {orjson.loads(row)["persona"] for row in personas} & {text.split("\n")[0] for text in drawn}


def test_same_seed_same_batches_from_any_step(batches, recipe):
    short = Batches(recipe | {"training": recipe["training"] | {"steps": CHUNK + 3}}, batches.corpus, batches.tokenizer)
    whole = list(short())
    assert len(whole) == CHUNK + 3
    for first in (3, CHUNK, CHUNK + 2):
        again = list(short(first))
        assert len(again) == len(whole) - first
        for one, other in zip(whole[first:], again, strict=True):
            assert all(torch.allclose(part, copy, 0, 0, equal_nan=True) for part, copy in zip(one, other, strict=True))
    assert all(batch.ids.shape[0] * (batch.ids.shape[1] - 15) <= 2048 for batch in whole)


def test_masked_places_hold_what_is_wanted_and_no_special_token(batches):
    texts = [Text("今日は友達と話した。\n本当に楽しかった" * 9), Text("雨です"), Text("お題", "答えです", 1.0)]
    rows = batches.rows(texts * 20)
    batch = batches.masked(rows, random.Random(0))
    length = batch.ids.shape[1]
    full = torch.tensor([row.ids + [1] * (length - len(row.ids)) for row in rows])
    assert torch.equal(batch.fits.nan_to_num(9), torch.tensor([9.0, 9.0, 1.0] * 20))
    assert batch.types[2].tolist() == [0] * 4 + [1] * 6 + [0] * (length - 10) and not batch.types[:2].any()
    assert torch.equal(full.flatten()[batch.places], batch.wanted) and batch.wanted.min() > 3
    assert torch.equal(batch.attention, (full != 1).long())
    shown = batch.ids.flatten()[batch.places]
    assert 0.7 < (shown == batches.tokenizer.mask_token_id).float().mean() < 0.9
    assert 0.03 < (shown == batch.wanted).float().mean() < 0.2
    elsewhere = torch.ones(full.numel(), dtype=torch.bool)
    elsewhere[batch.places] = False
    assert torch.equal(batch.ids.flatten()[elsewhere], full.flatten()[elsewhere])
    assert 0.15 < len(batch.places) / int(batch.attention.sum()) < 0.3


def test_pairs_are_shares_of_the_whole_text_masked_or_not(batches, recipe):
    texts = ["今日は友達と話した", "した話と達友は日今", "今日は友達と話した" * 2]
    rows = [row.ids for row in batches.rows([Text(text) for text in texts])]
    found = batches.masked([Row(row, [0] * len(row)) for row in rows], random.Random(0)).pairs
    assert found.shape == (3, recipe["summary"]["buckets"]) and found.sum(1) == pytest.approx(1)
    assert torch.equal(found, torch.stack([batches.pairs(row) for row in rows]))
    likeness = torch.nn.functional.cosine_similarity(found[:1], found[1:])
    assert likeness[0] < 0.5 < 0.9 < likeness[1], "order counts, length does not"
    assert batches.pairs(batches.tokenizer("あ").input_ids).sum() == 0


def test_stopped_training_goes_on_bit_by_bit(recipe, corpus, tokenizer, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    training = recipe["training"] | {"steps": 12, "save_steps": 4, "batch_tokens": 300, "warmup": 2}
    short = recipe | {"training": training, "held_out": 4, "architecture": recipe["architecture"] | TINY}
    batches = Batches(short, corpus, tokenizer)

    def run(folder, stop_after):
        monkeypatch.setattr(make_encoder, "CHECKPOINT", tmp_path / folder / "checkpoint.safetensors")
        model = build_model(short["architecture"], tokenizer, 0, short["summary"]["buckets"])
        if stop_after:
            real = make_encoder.rate_at
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(make_encoder, "rate_at", lambda step, spec: stop(step > stop_after) or real(step, spec))
                make_encoder.train(model, batches, "key")
            model = build_model(short["architecture"], tokenizer, 1, short["summary"]["buckets"])
        make_encoder.train(model, batches, "key")
        return model.state_dict()

    def stop(now):
        if now:
            raise KeyboardInterrupt

    whole, resumed = run("whole", None), run("resumed", 9)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    fresh = build_model(short["architecture"], tokenizer, 0, short["summary"]["buckets"]).state_dict()
    assert not torch.equal(whole["lm_head.dense.weight"], fresh["lm_head.dense.weight"])


def test_rate_warms_up_and_falls_to_a_hundredth():
    training = {"steps": 1000, "warmup": 100, "learning_rate": 1.0}
    rates = [make_encoder.rate_at(step, training) for step in (1, 50, 100, 550, 1000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.505, 0.01])


def test_product_is_small_and_loads_as_a_classifier(tokenizer):
    from safetensors import safe_open
    from transformers import AutoModelForSequenceClassification

    assert sum(path.stat().st_size for path in ENCODER.iterdir()) < 2.8e6
    assert {path.suffix for path in ENCODER.iterdir()} <= {".json", ".safetensors", ".md"}
    with safe_open(ENCODER / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert not any("lm_head" in name or "classifier" in name or "pooler" in name for name in names)
    model, info = AutoModelForSequenceClassification.from_pretrained(ENCODER, num_labels=5, output_loading_info=True)
    assert all(name.startswith("classifier.") for name in info["missing_keys"]) and not info["unexpected_keys"]
    config = model.config
    assert config.model_type == "xlm-roberta" and config.vocab_size == len(tokenizer)
    assert (config.pad_token_id, config.max_position_embeddings, config.type_vocab_size) == (1, 1026, 2)
    batch = tokenizer(["あ" * 2000, "今日は"], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        assert model(**batch).logits.shape == (2, 5)


def test_the_card_says_what_the_product_is(recipe, tokenizer):
    from transformers import AutoModel

    card = (ENCODER / "README.md").read_text(encoding="utf-8")
    count = sum(weight.numel() for weight in AutoModel.from_pretrained(ENCODER, add_pooling_layer=False).parameters())
    assert "{{" not in card and f"of {count:,} parameters" in card and f"{len(tokenizer):,} tokens" in card
    assert f"{recipe['training']['steps']:,} steps" in card and "license: apache-2.0" in card


def test_what_a_second_text_is_to_the_first_counts_for_pairs_alone(batches, recipe):
    model = build_model(recipe["architecture"] | TINY, batches.tokenizer, 0, recipe["summary"]["buckets"])
    torch.nn.init.normal_(model.fits.weight, std=5.0)
    texts = [Text("一人で読む文"), Text("お題", "答え", 1.0), Text("お題", "ほかの答え", 0.0)]
    batch = batches.masked(batches.rows(texts), random.Random(0))
    with torch.no_grad():
        read = {"input_ids": batch.ids, "token_type_ids": batch.types, "attention_mask": batch.attention}
        hidden = model.roberta(**read).last_hidden_state[:, 0]
        chances = model.fits(hidden).sigmoid().flatten()
        found = make_encoder.losses_of(model, batch)
    assert found.fits.item() == pytest.approx(-(chances[1].log() + (1 - chances[2]).log()).item() / 2, rel=1e-4)
    assert int(found.told) == int(chances[1] > 0.5) + int(chances[2] < 0.5)
    alone = make_encoder.losses_of(model, batches.masked(batches.rows(texts[:1]), random.Random(0)))
    assert alone.fits.item() == 0 and make_encoder.evaluate(model, [batch])["fits"] == int(found.told) / 2
