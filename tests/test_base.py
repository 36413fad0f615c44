"""The small base: a lossless tokenizer, a corpus without forbidden names and foreign keys, weights that copy."""

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch

import make_base
from recipekit import ROOT, yamlfile
from recipekit.base_corpus import Writer, drill, forbidden_names
from recipekit.base_model import attend_in_blocks, build_model, build_tokenizer
from recipekit.base_notices import News, notice
from recipekit.base_tasks import CHUNK, Tasks

BASE, GOLD = ROOT / "data/samples/base", ROOT / "data/samples/hawks/hawks_eval_gold.csv"
# Of each stage, the first chunk of batches.
LEARNED = (
    "e22a4ec0 6da3af98 bb199567 797ff078 e023287f 84ab3689 3a2bfa76 "
    "9bb766ea f4de2503 a3617c7d 1e840d2f f5e4167e 6a6d05a3 deec9146"
)
HAWKS_KEYS = {
    "persons",
    "name",
    "is_real",
    "is_offender",
    "age",
    "position",
    "affiliation",
    "address",
    "category",
    "act",
}
HAWKS_KEYS |= {"occured_locations", "police_departments"}


@pytest.fixture(scope="module")
def recipe():
    return yamlfile.load(ROOT / "recipes/base/base.yml")[0]


@pytest.fixture(scope="module")
def corpus():
    return yamlfile.load(ROOT / "recipes/base/corpus.yml")[0]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


def tasks(corpus, count):
    writer = Writer(corpus, random.Random(1))
    return [writer.reading((80, 220), 8, 2) for _ in range(count)]


def random_text(rng):
    ranges = [(0, 0x7F), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xFF00, 0xFFEF), (0x80, 0xD7FF), (0xE000, 0x10FFFF)]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(60))


def test_tokenizer_is_lossless(tokenizer):
    rng = random.Random(0)
    texts = [random_text(rng) for _ in range(500)]
    texts += ["  a \n\n b ", "髙﨑𠮷野家", "ﾊﾝｶｸ１２", "が\u3099é\r\n\t", "<0xE3>", "＜s＞", "", " "]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_tokenizer_reads_specials_in_text_and_adds_none(tokenizer):
    assert tokenizer.encode("<s>あ</s>", add_special_tokens=False)[::2] == [1, 2]
    assert len(tokenizer.encode("あ")) == 1
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")


def test_tokens_of_parts_are_the_tokens_of_the_whole(tokenizer):
    parts = ["<s>指示\n", "【記事】\n髙山", '{"n": "山"}</s>']
    ids = [token for part in parts for token in tokenizer.encode(part, add_special_tokens=False)]
    assert ids == tokenizer.encode("".join(parts), add_special_tokens=False)


def test_constrained_decoding_takes_rare_characters(tokenizer):
    from llguidance import LLMatcher
    from llguidance.hf import from_tokenizer

    schema = {
        "type": "object",
        "properties": {"n": {"type": "string"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    matcher = LLMatcher(from_tokenizer(tokenizer), LLMatcher.grammar_from_json_schema(schema))
    ids = tokenizer.encode('{"n":"髙﨑𠮷さん(４５)"}', add_special_tokens=False)
    assert all(matcher.consume_token(token) for token in [*ids, tokenizer.eos_token_id])
    assert matcher.is_stopped() and not matcher.is_error()
    matcher.reset()
    assert not matcher.consume_token(ids[-3])


def test_corpus_answers_are_json_and_copied_from_the_passage(corpus):
    for pieces in tasks(corpus, 200):
        prompt = "".join(text for text, answer in pieces if not answer)
        for text in (text for text, answer in pieces if answer):
            answer = json.loads(text.removesuffix("</s>"))
            values = [
                v
                for rows in answer.values()
                for row in rows
                for v in (row.values() if isinstance(row, dict) else [row])
            ]
            assert all(isinstance(value, bool) or value in prompt for value in values)
            keys = {*answer, *(key for rows in answer.values() for row in rows if isinstance(row, dict) for key in row)}
            assert not keys & HAWKS_KEYS


def test_corpus_asks_people_places_absence_and_truth(corpus):
    answers = "".join(text for pieces in tasks(corpus, 200) for text, answer in pieces if answer)
    for shape in (": []", ': ""', ": true", ": false", '"}, {"', '", "'):
        assert shape in answers


def test_corpus_keeps_forbidden_names_out(recipe, corpus):
    tasks_ = Tasks(recipe, corpus, build_tokenizer(corpus["characters"], 4096), [])
    writer, stage = Writer(corpus, random.Random(1)), recipe["stages"][-1] | {"drills": 0}

    def texts():
        return [tasks_.tokenizer.decode(tasks_.row(stage, writer)[0]) for _ in range(60)]

    assert any("市" in text for text in texts())
    tasks_.forbidden = ["市"]
    assert not any("市" in text for text in texts())


def test_forbidden_names_are_those_of_the_gold(tmp_path: Path):
    header = "quality_test_id,person_name,person_age_at_published,person_address,person_belongs_company,"
    header += "person_position_name,person_violated_law,occured_locations,police_departments\n"
    gold = tmp_path / "gold.csv"
    gold.write_text(header + "A1,山一太|川二子,40|50,北市,東社,社長,窃盗,南町|西町,中署\nA2,,,,,,\n", encoding="utf-8")
    assert forbidden_names(gold) == sorted(["山一太", "川二子", "北市", "東社", "南町", "西町", "中署"])
    assert forbidden_names(tmp_path / "none.csv") == []


def test_recipe_and_corpus_name_no_test_name():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "recipes/base").iterdir())
    assert [name for name in forbidden_names(GOLD) if name in text] == []


def test_drill_marks_what_can_be_known():
    ids, known = drill(random.Random(0), range(4, 2000), 400, [5, 20])
    assert len(ids) == len(known) == 400 and sum(known) > 50
    for place in (place for place, is_known in enumerate(known) if is_known):
        pair = ids[place - 2 : place + 1]
        assert any(ids[start : start + 3] == pair for start in range(place - 2))


def test_first_weights_copy(recipe, corpus):
    tokenizer = build_tokenizer(corpus["characters"], 4096)
    model = build_model(recipe["architecture"], len(tokenizer), 0)
    fresh = torch.randint(4, len(tokenizer), (4, 40))
    ids = torch.cat([fresh, fresh], 1)
    with torch.no_grad():
        guessed = model(input_ids=ids).logits.argmax(-1)
    assert (guessed[:, 43:-1] == ids[:, 44:]).float().mean() > 0.7  # 0 without start_copying


def test_same_seed_same_batches(recipe, corpus):
    tokenizer = build_tokenizer(corpus["characters"], 4096)
    stages = [{**recipe["stages"][-1], "steps": CHUNK + 2}, {**recipe["stages"][1], "steps": 3}]
    short = Tasks(recipe | {"stages": stages}, corpus, tokenizer, [])
    whole = list(short.batches())
    assert len(whole) == CHUNK + 5 == len(short.rates())
    for first, workers in ((0, 2), (3, 0), (CHUNK, 1), (CHUNK + 3, 0)):
        again = list(short.batches(first, workers))
        assert len(again) == len(whole) - first
        for one, other in zip(whole[first:], again, strict=True):
            assert all(torch.equal(part, copy) for part, copy in zip(one, other, strict=True))
    assert all(batch.ids.numel() <= stages[0]["batch_tokens"] + 32 * len(batch.ids) for batch in whole)


def test_stages_draw_the_text_that_the_bundled_base_learned(recipe, corpus, tokenizer):
    tasks_, digests = Tasks(recipe, corpus, tokenizer, forbidden_names(GOLD)), []
    for index, (_, chunk) in enumerate(tasks_.chunks):
        if chunk == 0:
            text = b"".join(batch.ids.numpy().tobytes() for batch in tasks_[index])
            digests.append(hashlib.sha256(text).hexdigest()[:8])
    assert " ".join(digests) == LEARNED  # else take the change back, or train the base again: uv run tools/make_base.py


def test_learned_places_are_answers(recipe, corpus):
    tokenizer = build_tokenizer(corpus["characters"], 4096)
    stage = {"steps": 1, "batch_tokens": 1000, "cards": 1, "lines": 2, "learning_rate": [0, 0]}
    batch = Tasks(recipe | {"stages": [stage]}, corpus, tokenizer, [])[0][0]
    answers = tokenizer.decode(batch.wanted)
    assert answers.startswith('[{"氏名": "') and answers.count("</s>") == len(batch.ids)
    within = batch.places[1:] == batch.places[:-1] + 1  # the token after a learned place is the one learned there
    assert within.float().mean() > 0.9
    assert torch.equal(batch.ids.flatten()[batch.places[1:]][within], batch.wanted[:-1][within])


def test_attention_in_blocks_is_attention():
    query, key, value = torch.randn(3, 2, 4, 300, 32)
    ours, _ = attend_in_blocks(None, query, key, value, None, scaling=32**-0.5)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-5)


def test_product_is_small_and_loads(tokenizer):
    from transformers import AutoModelForCausalLM

    assert sum(path.stat().st_size for path in BASE.iterdir()) < 12e6
    assert {path.suffix for path in BASE.iterdir()} <= {".json", ".safetensors", ".md", ".jinja"}
    assert tokenizer.chat_template == (ROOT / "recipes/base/chat_template.jinja").read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(BASE)
    assert model.config.model_type == "mistral" and model.config.sliding_window is None
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == len(tokenizer)


def test_product_answers_a_new_notice(tokenizer):
    from transformers import AutoModelForCausalLM

    text = "受賞者\n本文：北沢書道会は7日、北沢市の会社員、山野葉子氏(45)を文化功労賞に選んだ。"
    text += "南町の教諭、川田一夫さん(38)は「とてもうれしい」と話した。\n"
    ids = tokenizer("<s>" + text, return_tensors="pt", add_special_tokens=False)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    output = model.generate(**ids, max_new_tokens=160, do_sample=False, pad_token_id=3)[0, ids["input_ids"].shape[1] :]
    assert json.loads(tokenizer.decode(output, skip_special_tokens=True)) == {
        "受賞者": [
            {
                "受賞者名": "山野葉子",
                "決定済み": True,
                "満年齢": "45",
                "肩書き": "会社員",
                "勤務先": "",
                "現住所": "北沢市",
                "賞の名": "文化功労賞",
            }
        ],
        "授賞場所": [],
        "主催団体": ["北沢書道会"],
    }


def test_product_reads_held_out_notices(recipe, corpus, tokenizer):
    from transformers import AutoModelForCausalLM

    few = recipe | {"held_out": recipe["held_out"] | {"count": 40, "copies": 2}}
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    scores = make_base.evaluate(model, Tasks(few, corpus, tokenizer, []).held_out())
    assert scores["characters"] > 0.985 and scores["copies"] > 0.95
    assert scores["notices"] > 0.55  # 76% of 200 in the card


@pytest.mark.parametrize(("hard", "local"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.5)])
@pytest.mark.parametrize("pairs", [0.0, 0.3])
def test_notices_tell_what_they_are_asked(corpus, hard, local, pairs):
    writer = Writer(corpus, random.Random(3))
    framed = corpus["framed"] | corpus["hard_framed"]
    categories = {category for kind in framed.values() for category in kind["deeds"]}
    seen = set()
    for _ in range(300):
        (prompt, _), (answer, learned) = notice(
            writer, framed=0.5, brief=0.3, hard=hard, local=local, pairs=pairs, kana=pairs
        )
        assert learned and answer.endswith("</s>")
        people, places, orgs = json.loads(answer.removesuffix("</s>")).values()
        text = prompt.split("\n", 1)[1]
        for value in [*places, *orgs, *(v for one in people for v in one.values() if isinstance(v, str))]:
            assert value in text or value in categories
        keys = set(json.loads(answer.removesuffix("</s>"))) | {key for one in people for key in one}
        assert not keys & HAWKS_KEYS
        seen |= {(bool(people), bool(places), bool(orgs))} | {
            v for one in people for v in one.values() if v in (True, False)
        }
    assert {(False, False, False), (True, True, True), (True, False, False), True, False} <= seen
    assert ((False, True, True) in seen) == bool(hard)  # news of people without names


@pytest.mark.parametrize("local", [0.0, 1.0])
def test_local_notices_name_towns_again(corpus, local):
    writer, pairs, offices = Writer(corpus, random.Random(5)), 0, 0
    for _ in range(300):
        _, (answer, _) = notice(writer, framed=1.0, hard=0.3, local=local)
        _, places, orgs = json.loads(answer.removesuffix("</s>")).values()
        pairs += len({place[:3] for place in places}) < len(places)
        offices += any(org[:2] == place[:2] for org in orgs for place in places)
    assert (pairs > 10 and offices > 20) if local else (pairs, offices) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "hard", "local"), [("award", 0.0, 0.0), ("thanks", 0.0, 0.0), ("drivers", 0.3, 0.0), ("growers", 0.3, 0.5)]
)
def test_of_a_notice_only_the_news_is_kept(corpus, kind, hard, local):
    writer = Writer(corpus, random.Random(4))
    writer.words.local = local
    spec = {**corpus["notices"], **corpus["framed"], **corpus["hard_framed"]}[kind]
    news = News(writer, spec, hard)
    idle = news.spec["idle"] if hard else []
    for line in corpus["notice_others"] + corpus["fillers"] + corpus["meta_lines"] + idle:
        news.fill(line)
    assert (news.people, news.places, news.orgs) == ([], [], [])
    for line in news.spec["no"]:
        news.fill(line, flag=False)
    assert news.people and not any(one["flag"] for one in news.people)
    count = len(news.people)
    for line in news.spec["lines"] + news.spec["after"]:
        news.fill(line)
    assert all(one["flag"] and one["real"] and one["t"] for one in news.people[count:])
    assert news.places and news.orgs
    if kind != "award":
        news.retell("tales", aside=False)
        assert not any(one["real"] for one in news.people)


@pytest.mark.parametrize(("name", "fact"), [("tales", "real"), ("cleared", "flag")])
def test_what_is_told_aside_has_people_but_no_place_and_no_office(corpus, name, fact):
    writer = Writer(corpus, random.Random(6))
    writer.words.local = 0.5
    news = News(writer, corpus["hard_framed"]["growers"], hard=0.3, pairs=0.5)
    for line in corpus["local_frames"][name]:
        news.spec[name] = [line]
        news.retell(name, aside=True)
        for after in news.spec["after"]:
            news.fill(after)
        assert (news.places, news.orgs) == ([], []) and news.people and not any(one[fact] for one in news.people)


def test_where_a_line_has_two_places_both_are_kept(corpus):
    writer = Writer(corpus, random.Random(7))
    news = News(writer, corpus["framed"]["thanks"], hard=0.3, pairs=1.0)
    for line in [line for part in ("lines", "after", "unnamed") for line in news.spec[part] if "{place}" in line]:
        news.places = []
        news.fill(line)
        assert len(news.places) >= 2, line


def test_posts_and_companies_are_written_in_kana_as_often_as_asked(corpus):
    words = Writer(corpus, random.Random(8)).words
    counts = {}
    for words.kana in (0.0, 0.5):
        jobs, orgs = [words.job() for _ in range(400)], [words.org() for _ in range(400)]
        counts[words.kana] = sum(job.endswith("ー") for job in jobs), sum("ぁ" <= org[1] <= "ん" for org in orgs)
    assert counts[0.0][1] == 0 and counts[0.5][0] > counts[0.0][0] + 15 and counts[0.5][1] > 40


@pytest.mark.slow
def test_stopped_training_goes_on(recipe, corpus, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    stage = {**recipe["stages"][-1], "steps": 4, "passage": [50, 80], "batch_tokens": 2048}
    short = recipe | {"stages": [stage], "held_out": recipe["held_out"] | {"count": 2, "copies": 1}}
    short["training"] = recipe["training"] | {"save_steps": 2}
    tokenizer = build_tokenizer(corpus["characters"], 4096)

    def run(folder: str, stop_after: int | None) -> dict:
        monkeypatch.setattr(make_base, "CHECKPOINT", tmp_path / folder / "checkpoint.safetensors")
        tasks_ = Tasks(short, corpus, tokenizer, [])
        model = build_model(short["architecture"], len(tokenizer), 0)
        if stop_after:
            batches = list(tasks_.batches())
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(tasks_, "batches", lambda first, workers: stopping(batches, stop_after))
                make_base.train(model, tasks_, "key", 0)
            model = build_model(short["architecture"], len(tokenizer), 0)
        make_base.train(model, tasks_, "key", 0)
        return model.state_dict()

    def stopping(batches, count):
        yield from batches[:count]
        raise KeyboardInterrupt

    whole, resumed = run("whole", None), run("resumed", 3)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
