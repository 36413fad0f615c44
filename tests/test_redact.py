import json
import re

import orjson
import pytest

from answers import answer, gold, person
from recipekit.evaluation import Case, Evaluation
from recipekit.redact import redact
from recipekit.task import Task, load_task
from scored import predicted, report_of

HAWKS = load_task("hawks")
HIROSE = person("広瀬好孝", age="45", act="窃盗", affiliation="わかば産業", position="社長")
ARTICLE = (
    "桂署は3日、わかば産業社長の広瀬好孝（ひろせ・よしたか）容疑者（４５）を窃盗の疑いで逮捕した。"
    "広瀬容疑者は大森花子さん(38)の財布を盗んだ疑い。大森さんは「怖い」と話した。"
)


def redacted(article, right=None, output=None, raw=None):
    """Show an article of hawks without names."""
    right = right or gold()
    row = predicted("A", output or answer())
    comparison = Evaluation(HAWKS).comparer.compare(right, row["output"], article)
    return redact(HAWKS)(Case("A", article, comparison, row | ({"raw": raw} if raw else {})))


def test_a_person_has_one_number_in_article_slots_and_answer():
    wrong = answer(HIROSE | {"name": "広瀬", "affiliation": ""}, person("大森 花子", is_offender=False))
    case = redacted(ARTICLE, gold(HIROSE, police=["桂署"]), wrong)
    numbers = dict(re.findall(r"(人物\d)(容疑者|さん)", case.article))
    assert case.article == (
        "桂署は3日、わかば産業社長の人物1（人物1）容疑者（４５）を窃盗の疑いで逮捕した。"
        "人物1容疑者は人物2さん(38)の財布を盗んだ疑い。人物2さんは「怖い」と話した。"
    )
    assert numbers == {"人物1": "容疑者", "人物2": "さん"}
    slots = {(slot.column, slot.gold, slot.predicted) for slot in case.comparison.slots}
    assert ("person_name", "人物1", "人物1") in slots and ("person_belongs_company", "わかば産業", None) in slots
    assert [person["name"] for person in case.prediction["output"]["persons"]] == ["人物1", "人物2"]
    assert json.loads(case.prediction["raw"]) == case.prediction["output"]
    assert (case.id, case.prediction["id"]) == ("A", "A")


@pytest.mark.parametrize(
    ("article", "shown"),
    [
        ("主婦の田中花子さん（６７）", "主婦の人物1さん（６７）"),
        ("田中まりこちゃん(3)と田中みさ子さん", "人物1ちゃん(3)と人物2さん"),
        ("グエン・バン・ナムさんと友人のナムさん", "人物1さんと友人の人物1さん"),
        ("ｸﾞｴﾝ･ﾊﾞﾝ氏", "人物1氏"),
        ("長男の一郎君(9)、山田　太郎様", "長男の人物1(9)、人物2様"),
        ("死亡したのは佐藤健太（当時23）と鈴木葵（19歳）", "死亡したのは人物1（当時23）と人物2（19歳）"),
        ("John Smithさん、髙橋一受刑者、吉田𠮷男元被告", "人物1さん、人物2受刑者、人物3被告"),
        ("上田美咲弁護士と石井巡査部長", "人物1弁護士と人物2巡査部長"),
        ("田中花子（たなか・はなこ）さん", "人物1（人物1）さん"),
        ("大森花子さん。大森は、花子も、大森家", "人物1さん。人物1は、人物1も、人物1家"),
        ("会社員田中花子さんと田中さん", "人物1さんと人物1さん"),
        ("同様に皆さん、お客さん、模様、氏名、自営業の男(69)、女性(70)", None),
        ("逮捕された容疑者と同署の署長、県警本部長、同容疑者、被告の男", None),
        ("たくさんの人が市議会議長と話した。第2回大会", None),
        ("", None),
    ],
)
def test_rule_for_names_in_the_article(article, shown):
    assert redacted(article).article == (article if shown is None else shown)


def test_hidden_text_is_bounded():
    sentence = "捜査員が現場で目撃した状況を詳しく調べているところでの話によるとこの事件で" * 20
    assert len(redacted(sentence + "田中さん").article) > len(sentence)
    kanji = "".join(map(chr, range(0x4E00, 0x4E64)))
    assert redacted(kanji + "さん").article == kanji[:88] + "人物1さん"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (
            '{"persons": [{"name": "長谷川\\u5065\\u592a", "age": "3", "act": "\\u7a83\\u76d7"}, {"name": "陳',
            '{"persons": [{"name": "人物1", "age": "3", "act": "窃盗"}, {"name": "人物2',
        ),
        (
            '{"persons": [{"name": ["長谷川健太", "陳"], "act": "窃盗"}, {"nam',
            '{"persons": [{"name": ["人物1", "人物2"], "act": "窃盗"}, {"nam',
        ),
        ('{"persons": ["長谷川健太", "陳"], "act": "窃盗"', '{"persons": ["人物1", "人物2"], "act": "窃盗"'),
        ('{"name" : "長谷川\\"健太", "act": "窃盗 陳', '{"name" : "人物3"人物1", "act": "窃盗 陳'),
        ("長谷川健太は窃盗 陳", "人物1は窃盗 陳"),  # one character in running text is no name
    ],
)
def test_raw_answers_broken_off_and_escaped(raw, shown):
    right = gold(person("長谷川健太", act="窃盗"), person("陳"))
    assert redacted("", right, raw=raw).prediction["raw"] == shown


@pytest.mark.parametrize("name", ["長谷川健太", "\\u9577\\u8c37\\u5ddd\\u5065\\u592a"])
def test_names_only_in_a_broken_answer_are_hidden_in_the_article(name):
    case = redacted("長谷川が長谷 川健太を", raw=f'{{"persons": [{{"name": "{name}", "is_off')
    assert case.article == "人物1が人物1を"


def test_answered_names_in_every_width_and_of_every_length():
    assert redacted("Johnsonと、Ｊｏｈｎｓｏｎ", output=answer(person("Johnson"))).article == "人物1と、人物1"
    brothers = answer(person("広瀬"), person("広瀬好孝"), person("広瀬一郎"))
    assert set(redacted("広瀬好孝、広瀬一郎", output=brothers).article.split("、")) == {"人物1", "人物2"}
    case = redacted("大森花子（おおみさきもり）さん", output=answer(person("みさき")))
    assert case.article == "人物2（人物2）さん"
    [slot] = redacted("", gold(person("陳"))).comparison.slots
    assert slot.gold == "人物1", "even of one character"


def test_gold_values_of_other_columns_stay():
    right = gold(person("広瀬好孝", affiliation="桂浜工務店"))
    assert redacted("桂浜工務店社長の広瀬好孝被告", right).article == "桂浜工務店社長の人物1被告"
    assert redacted("桂浜工務店社長の広瀬好孝被告").article == "人物2社長の人物1被告"


def test_other_paths_and_tasks():
    schema = {"type": "object"}

    def task(path, entity=None):
        columns = {"who": {"path": path, "compare": "person_name"} | ({"entity": "e"} if entity else {})}
        entities = {"e": {"path": entity, "key": "who"}} if entity else {}
        spec = {"id": "id", "separator": "|", "columns": columns, "entities": entities}
        return Task(HAWKS.spec | {"gold": spec, "output_schema": schema}, HAWKS.dir, HAWKS.root)

    output = {"people": [{"full": {"name": "長谷川健太"}, "role": "victim"}], "names": ["大森花子"], "role": "桂"}
    for one, hidden in (
        (task("people[?role=='x'].full.name"), "長谷川健太"),
        (task("full.name || names", "people[?role=='x']"), "長谷川健太"),
        (task("names"), "大森花子"),
        (task("@", "names[]"), "大森花子"),
    ):
        comparison = Evaluation(one).comparer.compare(gold(), {})
        case = redact(one)(Case("A", "桂市の長谷川健太と大森花子", comparison, predicted("A", output)))
        assert hidden not in case.article + json.dumps(case.prediction, ensure_ascii=False)
        assert "桂市" in case.article and case.prediction["output"]["role"] == "桂"
    case = redact(HAWKS)(Case("A", None, comparison, predicted("A", None)))
    assert case.article is None and case.prediction["raw"] == "null"


OFFENDERS = ["広瀬好孝", "長谷川健太", "林一", "グエン・バン・ナム", "高梨サチ"]
VICTIMS = ["大森花子", "鈴木みさき", "五十嵐真", "陳美玲", "岡本ﾏﾘ"]


def shown_articles():
    """Articles of an offender, a victim that no label has, and one that the answer has and the filter leaves out."""
    for i, (name, victim, other) in enumerate(zip(OFFENDERS, VICTIMS, VICTIMS[1:] + VICTIMS[:1], strict=True)):
        surname = {"グエン・バン・ナム": "ナム", "林一": "林"}.get(name, name[:-2])
        article = (
            f"桂署は{name}容疑者(4{i})を逮捕した。{surname}容疑者は{victim}さん（３{i}）を殴った。{victim[:2]}さんは軽傷。"
            f"目撃した{other}（2{i}歳）は驚いた。{other}によると{name}が逃げた。"
        )
        offender = person(name, age=f"4{i}", act="傷害")
        outputs = [
            answer(offender | {"age": "99"}, person(other, is_offender=False), police=["海署"]),
            answer(person(victim, act="傷害", affiliation=name), places=[other]),
            answer(offender | {"name": name[:2]}),
        ]
        for n, output in enumerate(outputs):
            right = gold(offender, police=["桂署"], id=f"A{i}-{n}")
            yield right, predicted(right.id, output), article
        raw = json.dumps(outputs[0], ensure_ascii=n % 2 == 0)[:200]
        yield gold(offender, id=f"A{i}-bad"), {"id": f"A{i}-bad", "output": None, "raw": raw}, article


def test_no_name_is_in_the_report_or_the_errors():
    html, metrics, errors = report_of(HAWKS, shown_articles(), hide=True)
    plain, same, _ = report_of(HAWKS, shown_articles())
    assert {k: v for k, v in metrics.items() if k != "data"} == {k: v for k, v in same.items() if k != "data"}
    assert all(name in plain for name in OFFENDERS + VICTIMS)
    written = html + orjson.dumps(errors).decode()
    for name in OFFENDERS + VICTIMS:
        assert name not in written
        assert not re.search(rf"(?:{name[:2]}|{name[-2:]}|{name[:1]})(?:容疑者|さん|[(（])", written), name
        assert name.encode("unicode-escape").decode() not in written
    for surname in ("広瀬", "長谷川", "グエン", "高梨", "大森", "五十嵐", "みさき"):
        assert surname not in written
    assert "人物1, 人物2" in html and "--redact" not in plain


def test_marks_still_stand_in_redacted_articles():
    html, _, _ = report_of(HAWKS, shown_articles(), hide=True)
    case = html[html.index("<strong>A0-0</strong> — 誤り") :]
    case = case[: case.index("</details>")]
    assert re.search(r'<mark class="right" title="person_name: right">人物1</mark>容疑者', case)
    assert re.search(r'<mark class="missed" [^>]*>40</mark>', case)
    case = html[html.index("<strong>A0-1</strong> — 誤り") :]
    assert re.search(r'<mark class="wrong" [^>]*>人物2</mark>さん', case[: case.index("</details>")])


def test_broken_answers_are_withheld():
    right, article = gold(person("甲野一郎")), "桂市で綾小路麗子が見た。"
    for prediction in (
        {"raw": "名前は綾小路麗子です", "output": None},
        {"raw": None, "output": {"氏名": "綾小路麗子"}},
    ):
        html, _, _ = report_of(
            HAWKS, [(right, {"id": "A", **prediction}, article.replace("綾小路麗子", "人"))], hide=True
        )
        assert "綾小路" not in html and "withheld" in html
