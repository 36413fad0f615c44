"""The bundled sample data of ogiri: written by its sources, and ranked by what stands beside an odai."""

import csv
import hashlib
import io
import json
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score, roc_auc_score

from breaking import assert_named
from recipekit import ROOT, invented_ogiri, yamlfile
from recipekit import invented_ogiri_images as images
from recipekit.errors import UserError

SAMPLES = ROOT / "data/samples/ogiri"
SETS = {"train": (1689, 192, 64), "validation": (438, 48, 16), "test": (539, 60, 20)}
"""Data set -> rows, odai, odai with a picture."""


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def digest_of(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def sources():
    return invented_ogiri.read(SAMPLES / "source")


@pytest.fixture(scope="module")
def made(sources):
    return invented_ogiri.sample(sources)


@pytest.fixture(scope="module")
def captions():
    return {row["digest"]: row["caption"] for row in rows_of(SAMPLES / "captions.csv")}


@pytest.fixture(scope="module")
def tables(captions):
    """Rows by data set, with the caption of their image and the digest of its bytes."""
    tables = {name: rows_of(SAMPLES / f"{name}.csv") for name in SETS}
    for row in (row for rows in tables.values() for row in rows):
        row["digest"] = digest_of(SAMPLES / row["image"]) if row["image"] else ""
        row["body"] = "\n".join(filter(None, (row["odai"], captions.get(row["digest"]))))
    return tables


@pytest.fixture(scope="module")
def words():
    topics = [yamlfile.load(SAMPLES / f"source/topics_{name}.yml")[0]["topics"] for name in ("drawn", "told")]
    return {
        name: {word for kind in ("thing", "who", "place", "act") for word in spec[kind].split()}
        for part in topics
        for name, spec in part.items()
    }


def topics_in(text, words):
    return {topic for topic, own in words.items() if any(word in text for word in own)}


def test_the_committed_files_are_what_the_sources_make(tmp_path):
    invented_ogiri.make(SAMPLES / "source", tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    kept = [path for path in SAMPLES.rglob("*.*") if path.name != "README.md" and path.parent.name != "source"]
    assert names == sorted(str(path.relative_to(SAMPLES)) for path in kept)
    for name in SETS:
        old = (SAMPLES / f"{name}.csv").read_bytes()
        assert (tmp_path / f"{name}.csv").read_bytes() == old, f"{name}: run tools/make_samples.py ogiri"
    for name in (name for name in names if name.endswith(".png")):
        with Image.open(tmp_path / name) as new, Image.open(SAMPLES / name) as old:
            assert new.convert("RGB").tobytes() == old.convert("RGB").tobytes(), f"{name}: run make_samples.py"
    texts = [[list(row.values())[1:] for row in rows_of(folder / "captions.csv")] for folder in (tmp_path, SAMPLES)]
    assert texts[0] == texts[1], "captions (their digests are of bytes, which another zlib packs otherwise)"


def test_it_is_small():
    sizes = {path: path.stat().st_size for path in SAMPLES.rglob("*.*")}
    assert sum(sizes.values()) <= 700_000
    assert max(size for path, size in sizes.items() if path.suffix == ".png") <= 3000


def test_rows_and_columns(tables):
    for name, (count, asked, drawn) in SETS.items():
        rows = tables[name]
        assert list(rows[0])[:7] == ["id", "odai_id", "type", "odai", "image", "response", "score"]
        assert len(rows) == count
        odai = {row["odai_id"]: (row["type"], row["odai"], row["image"]) for row in rows}
        assert len(odai) == asked and sum(kind == "image" for kind, *_ in odai.values()) == drawn
        assert all((row["type"], row["odai"], row["image"]) == odai[row["odai_id"]] for row in rows)
        assert all((kind == "image") == bool(image) and (text or image) for kind, text, image in odai.values())
        assert set(Counter(row["odai_id"] for row in rows).values()) <= set(range(6, 13))
        for row in rows:
            text = row["odai"] + row["response"]
            assert row["response"] and text == text.strip() and not set("<>{}|\n") & set(text), row
    ids = [row["id"] for rows in tables.values() for row in rows]
    assert len(set(ids)) == len(ids)


def test_no_odai_picture_or_response_is_in_two_sets(tables, sources):
    for column in ("odai_id", "body", "digest"):
        kept = [{row[column] for row in rows if row[column]} for rows in tables.values()]
        assert sum(map(len, kept)) == len(set.union(*kept)), column
    frames = "|".join(str(frame) for frame in sources["extras"]["generic"])
    anywhere = re.compile(frames.replace("{", "(?:").replace("}", ")"))
    said = Counter(row["response"] for rows in tables.values() for row in rows)
    assert [text for text, count in said.items() if count > 1 and not anywhere.fullmatch(text)] == []
    assert len({(row["odai"], row["digest"]) for rows in tables.values() for row in rows}) == 300


def test_a_score_is_the_mean_of_three_to_six_votes_on_the_scale(tables):
    for rows in tables.values():
        scores = np.array([float(row["score"]) for row in rows])
        assert all(re.fullmatch(r"-?\d\.\d{1,3}", row["score"]) for row in rows)
        assert all(any(abs(score - round(score * n) / n) < 6e-4 for n in range(3, 7)) for score in scores)
        assert -1 <= scores.min() < 0 and scores.max() <= 5 and 1.8 < scores.mean() < 2.5 and 1 < scores.std() < 1.3


def test_every_image_has_one_caption_which_names_two_figures_of_its_topic(tables, captions, words, sources):
    shown = {row["digest"] for rows in tables.values() for row in rows} - {""}
    assert shown == set(captions) == {digest_of(path) for path in (SAMPLES / "images").iterdir()}
    for caption in captions.values():
        (topic,) = topics_in(caption, words)
        assert sum(name in caption for name in sources["topics"][topic]["drawn"].split()) >= 2, caption
    uses = Counter({row["odai_id"]: row["digest"] for rows in tables.values() for row in rows}.values())
    del uses[""]
    assert Counter(uses.values()) == {1: 80, 2: 10}


def test_pictures_are_small_palette_images_that_show_something():
    pixels = set()
    for path in (SAMPLES / "images").iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "P", (240, 180))
            assert len(image.getcolors()) >= 5 and not image.info.keys() - {"transparency"}
            pixels.add(image.convert("RGB").tobytes())
    assert len(pixels) == 90


def test_what_a_caption_says_is_drawn(sources):
    picture = images.Picture("猫", "砂浜", "猫", "茶", 1, "毛糸玉", False)

    def pixels(**changes):
        return np.array(Image.open(io.BytesIO(images.png(sources, picture._replace(**changes)))))

    plain = pixels()
    ink = list(sources["colours"]).index
    assert (plain == ink("茶")).sum() > 1000 and (pixels(colour="白") == ink("茶")).sum() < 100
    assert (pixels(flipped=True) == plain[:, ::-1]).all()
    assert (plain[:, :160] != pixels(number=3)[:, :160]).any() and (plain[:, 168:] == pixels(number=3)[:, 168:]).all()
    assert (plain[:, 168:] != pixels(beside="猫", main="毛糸玉")[:, 168:]).any()
    for number in (1, 2, 3):
        balloons = pixels(topic="遊園地", main="風船", colour="赤", number=number)[:, :160] == ink("赤")
        labels, found = ndimage.label(balloons)
        assert sum((labels == label).sum() > 200 for label in range(1, found + 1)) == number
    assert images.caption(sources, picture) == "砂浜に、茶色い猫が一匹いる。右に毛糸玉がある。"
    assert images.caption(sources, picture._replace(number=2, flipped=True)).endswith("二匹いる。左に毛糸玉がある。")


def within(rows, scores):
    """Return the mean over odai of NDCG and of Spearman's correlation."""
    groups = defaultdict(list)
    for row, score in zip(rows, scores, strict=True):
        groups[row["odai_id"]].append((float(row["score"]), score))
    pairs = [np.array(group).T for group in groups.values()]
    ndcg = np.mean([ndcg_score([truth + 1], [guess]) for truth, guess in pairs])
    return ndcg, np.mean([spearmanr(truth, guess)[0] if np.ptp(guess) else 0 for truth, guess in pairs])


def fitted(train, test, text, target):
    """Predict a target by ridge regression on TF-IDF of characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True), Ridge(alpha=1.0)
    )
    return model.fit([text(row) for row in train], target).predict([text(row) for row in test])


def test_characters_rank_better_than_nothing_and_far_below_the_worth(tables, made):
    train, test = tables["train"], tables["test"]
    scores = [float(row["score"]) for row in train]
    ridge = within(test, fitted(train, test, lambda row: f"{row['body']}\n{row['response']}", scores))
    oracle = within(test, [row.worth for row in made["test"]])
    nothing = within(test, np.zeros(len(test)))
    assert 0.3 < ridge[1] < 0.55 and 0.75 < oracle[1] < 0.9, (ridge, oracle)
    assert nothing[0] + 0.03 < ridge[0] < oracle[0] - 0.03, (nothing, ridge, oracle)


def test_whether_a_response_fits_shows_beside_its_odai_alone(tables, words, made):
    fits = {
        name: [bool(topics_in(row["body"], words) & topics_in(row["response"], words)) for row in rows]
        for name, rows in tables.items()
    }
    for name, rows in made.items():
        assert fits[name] == [row.answer.relates for row in rows]
        assert 0.47 < np.mean(fits[name]) < 0.53
    said = {name: [row for row in rows if topics_in(row["response"], words)] for name, rows in tables.items()}
    known = {
        name: [fit for row, fit in zip(rows, fits[name], strict=True) if topics_in(row["response"], words)]
        for name, rows in tables.items()
    }
    for text in (lambda row: row["response"], lambda row: f"{row['body']}\n{row['response']}"):
        guess = fitted(said["train"], said["test"], text, known["train"])
        assert 0.4 < roc_auc_score(known["test"], guess) < 0.6
    echoes = [
        any(word in row["body"] and word in row["response"] for own in words.values() for word in own)
        for row, fit in zip(tables["train"], fits["train"], strict=True)
        if fit
    ]
    assert 0.55 < np.mean(echoes) < 0.8, "the others say another word of the topic"


def test_no_topic_is_better_than_another(tables, words, made):
    by_topic = defaultdict(list)
    for name, rows in tables.items():
        for row, told in zip(rows, made[name], strict=True):
            for topic in topics_in(row["response"], words):
                by_topic[topic].append(told.answer.relates)
    assert set(by_topic) == set(words) and len(words) >= 40
    assert all(len(fits) > 20 and 0.4 < np.mean(fits) < 0.65 for fits in by_topic.values())
    assert np.std([np.mean(fits) for fits in by_topic.values()]) < 0.04


def test_fit_twist_and_length_each_move_the_score_within_an_odai(made, sources):
    rows = [row for part in made.values() for row in part]
    length = [min(abs(np.log(len(row.answer.text) / 12)), 1.5) for row in rows]
    twists = sorted(sources["twists"])
    columns = np.array(
        [
            [row.answer.relates, far, *(row.answer.twist == twist for twist in twists)]
            for row, far in zip(rows, length, strict=True)
        ],
        dtype=float,
    )
    scores = np.array([row.score for row in rows])
    for odai in {row.odai_id for row in rows}:
        own = [place for place, row in enumerate(rows) if row.odai_id == odai]
        columns[own] -= columns[own].mean(0)
        scores[own] -= scores[own].mean()
    effects = np.linalg.lstsq(columns, scores, rcond=None)[0]
    rest = scores - columns @ effects
    errors = np.sqrt(rest.var() * np.diag(np.linalg.inv(columns.T @ columns)))
    assert 1.1 < effects[0] < 1.4 and effects[1] < -6 * errors[1] and (effects[2:] > 8 * errors[2:]).all()
    wanted = [sources["twists"][twist] for twist in twists]
    assert np.abs(effects[2:] - wanted).max() < 0.25 and spearmanr(effects[2:], wanted)[0] > 0.8


def test_frames_are_many_and_figures_are_used(sources):
    assert len(sources["odai"]["text"]) >= 12
    for form in ("state", "say"):
        frames = sources[form]
        assert len(frames["plain"]) >= 60 <= sum(len(part) for name, part in frames.items() if name != "plain")
    drawn = [name for spec in sources["topics"].values() for name in spec.get("drawn", "").split()]
    assert sorted(drawn) == sorted(sources["figures"]), "every figure is drawn"


def test_the_small_encoder_knows_the_characters(tables):
    known = json.loads((ROOT / "data/samples/encoder/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    text = "".join(row["body"] + row["response"] for name in ("validation", "test") for row in tables[name])
    met = set("".join(row["body"] + row["response"] for row in tables["train"]))
    assert np.mean([char not in known for char in text]) < 0.004, "the others are read byte by byte"
    assert np.mean([char not in met for char in text]) < 0.002, "a model trained on the sample alone has met the others"


def test_a_writer_writes_no_row_of_the_sample(sources, made):
    rows = [row for part in made.values() for row in part]
    old = {
        row.answer.text for row in rows if any(kind in row.answer.text for kind in ("。", "「")) or row.answer.relates
    }
    writer = invented_ogiri.Writer(sources, random.Random("other"), rows)
    pairs = [writer.pair() for _ in range(4000)]
    assert not {answer.text for _, answer in pairs} & old
    assert not {odai for odai, _ in pairs} & {row.odai for row in rows}
    pictures = {odai.picture for odai, _ in pairs if odai.picture}
    assert not pictures & {row.odai.picture for row in rows} and len(pictures) > 500
    assert 0.46 < np.mean([answer.relates for _, answer in pairs]) < 0.54
    again = invented_ogiri.Writer(sources, random.Random("other"), rows)
    assert [again.pair() for _ in range(50)] == pairs[:50]
    other = invented_ogiri.Writer(sources, random.Random("another"), rows)
    assert [other.pair() for _ in range(50)] != pairs[:50]
    without = invented_ogiri.Writer(sources, random.Random("other"))
    assert {without.pair()[1].text for _ in range(4000)} & old, "so it does where it is not told of them"


BROKEN = [
    ("odai.yml", "こんな<thing>はいやだ", "こんな<thnig>はいやだ", "unknown slot <thnig>"),
    ("odai.yml", "say：このあと", "tell：このあと", "expected state：… or say：…"),
    ("odai.yml", "{百年|千年}後", "{百年|千年後", "found a '{'"),
    ("answers_say.yml", "今日から<thing>が", "今日からラーメンが", "the text holds 'ラーメン'"),
    ("answers_say.yml", "「<act>の極意、それは", "「極意、それは", "expected a slot in it"),
    ("answers_state.yml", "  誇張:", "  大げさ:", "state.大げさ has no worth under twists:"),
    ("answers_state.yml", "state:", "states:", "'states' was unexpected"),
    ("extras.yml", "お腹がすいた", "<thing>がほしい", "found <thing>, expected no slot here"),
    ("topics_told.yml", "黒板 給食", "黒板 まぐろ", "'まぐろ' already stands at"),
    ("topics_told.yml", "黒板 給食", "黒板 子猫の絵", "'子猫の絵' of 学校 holds '子猫' of 猫"),
    ("topics_told.yml", "act: 朝礼 席替え", "act: 朝礼", "学校.act has one word"),
    ("topics_drawn.yml", "drawn: 猫 毛糸玉", "drawn: 猫 肉球", "猫 draws '肉球'"),
    ("topics_drawn.yml", "drawn: 猫 毛糸玉", "drawn: 猫", "猫 has one figure"),
    ("figures_living.yml", "ellipse 色 26 50 82 98", "ellipse 色 26 50 82", "ellipse has 3 numbers, expected 4"),
    ("figures_living.yml", "poly 色 20 34 22 4 42 18", "poly 色 20 34 22 4 42", "poly has 5 numbers"),
    ("figures_living.yml", "ellipse 黒 32 30 41 42", "circle 黒 32 30 41 42", "found 'circle 黒"),
    ("figures_living.yml", "ellipse 黒 32 30 41 42", "ellipse 黒 32 30 41 4x", "expected whole numbers"),
    ("figures_living.yml", "colours: 茶 灰 橙 白 黄", "colours: 茶 銀", "names '銀', no colour"),
    ("figures_living.yml", "    colours: 茶 灰 橙 白 黄\n", "", "猫 has shapes of '色' and no colours:"),
    ("pictures.yml", "rect 草 -5 68", "rect 芝 -5 68", "'芝' is no colour"),
    ("pictures.yml", "  砂浜:", "  灯台の前:", "the text holds '灯台'"),
    ("plan.yml", "relates: 1.3", "relates: much", "'much' is not of type 'number'"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), BROKEN, ids=range(len(BROKEN)))
def test_an_error_in_the_sources_is_named_by_its_line(tmp_path, file, old, new, message):
    assert_named(
        invented_ogiri.make, SAMPLES / "source", tmp_path, (file, old, new, message), r"\.yml:\d+: |no file there says"
    )


def test_too_few_frames_end_in_an_error_and_not_in_a_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(invented_ogiri, "TRIES", 1)
    with pytest.raises(UserError, match="after 1 tries"):
        invented_ogiri.make(SAMPLES / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()
