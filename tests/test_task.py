from pathlib import Path

import pytest

from recipekit import ROOT
from recipekit.errors import UserError
from recipekit.task import load_task


def problems(root: Path, name: str = "mini") -> list[str]:
    with pytest.raises(UserError) as caught:
        load_task(name, root)
    return caught.value.problems


def edit(root: Path, old: str, new: str) -> None:
    path = root / "recipes" / "mini" / "task.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*/task.yml")), ids=lambda p: p.parent.name)
def test_every_task_in_the_repository_loads(path):
    task = load_task(path.parent.name)
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=../task.schema.json\n")
    assert task.name == path.parent.name


def test_hawks_prompt_is_system_instruction_article():
    system, instruction, article = load_task("hawks").prompt("本文です。")
    assert system.startswith("<s>あなたはニュース記事から犯罪者情報を抽出するアシスタント。")
    assert "【基本ルール】" in instruction
    assert article == "【記事】\n本文です。\n"


def test_metadata_is_stripped_and_braces_in_an_article_stay(mini):
    task = load_task("mini", mini)
    assert task.prompt("配信 共同通信\n{{ 7*7 }}という文字列。")[-1] == "【記事】\n{{ 7*7 }}という文字列。\n"


def test_unknown_task_names_the_known_ones(mini):
    assert problems(mini, "hawk") == [
        "no task 'hawk': recipes/hawk/task.yml does not exist; the tasks are mini",
    ]


def test_all_schema_problems_come_at_once_with_their_lines(mini):
    edit(mini, "kind: extraction", "kind: extractoin")
    edit(mini, "  bos: <s>", "  boss: <s>")
    found = problems(mini)
    assert any(p.startswith("recipes/mini/task.yml:2: kind:") or ":2: kind:" in p for p in found)
    assert any(":8: prompt.boss: unknown key; the keys here are segments, bos, eos, strip" in p for p in found)
    assert any("'bos' is a required property" in p for p in found)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[system.txt", "[systm.txt", ":7: prompt.segments.0: the prompt file systm.txt does not exist"),
        ("'^配信.*\\n'", "'(配信'", ":10: prompt.strip.0: not a regular expression"),
        ("base: pos", "base: poss", ":15: data.train.mix.base: 'poss' is no data set"),
        ('"persons[].name"', '"persons[.name"', ":27: gold.columns.person_name.path: not a JMESPath"),
        ("type: array", "type: arry", "output_schema.properties.persons.type: not a JSON Schema"),
        (
            '{path: "persons[].name"',
            "{entity: man, path: name",
            "gold.columns.person_name.entity: 'man' is not in gold.entities",
        ),
        (
            "  columns:",
            "  entities: {person: {path: persons, key: person_name}}\n  columns:",
            "gold.entities.person.key: 'person_name' is no column of entity person",
        ),
        (
            "  columns:",
            "  slices: {law: {column: act}}\n  columns:",
            "gold.slices.law.column: 'act' is not in gold.columns",
        ),
        (
            "  columns:",
            "  one_row_per: man\n  columns:",
            "gold.one_row_per: found 'man', expected article or an entity",
        ),
        ("[phase1, phase2]", "[phase1, phase3]", ":5: phases.1: recipes/mini/phase3.yml does not exist"),
        ("name: mini", "name: mimi", ":1: name: found 'mimi', expected the folder's name 'mini'"),
    ],
)
def test_wrong_content_is_named_with_line_and_key(mini, old, new, expected):
    edit(mini, old, new)
    found = problems(mini)
    assert len(found) == 1 and expected in found[0]


def test_broken_yaml_and_repeated_key(mini):
    path = mini / "recipes" / "mini" / "task.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "name: again\n", encoding="utf-8")
    assert "key 'name' stands twice (first on line 1)" in problems(mini)[0]
    path.write_text("name: [mini\nkind: x\n", encoding="utf-8")
    assert ":2: not valid YAML" in problems(mini)[0]


def test_unknown_variable_in_a_prompt(mini):
    (mini / "recipes" / "mini" / "article.txt").write_text("{{ boddy }}", encoding="utf-8")
    assert "article.txt: 'boddy' is undefined; the one variable is body" in problems(mini)[0]


def test_a_task_may_declare_its_data_alone(mini):
    """Then what it lacks is one clear error, wherever it is first missed."""
    source = "{repo: a/b, revision: main, files: ['*.jsonl'], license: CC0}"
    text = f"name: mini\nkind: regression\ntitle: t\nsummary: s\ndata: {{sources: {{one: {source}}}}}\n"
    (mini / "recipes" / "mini" / "task.yml").write_text(text, encoding="utf-8")
    task = load_task("mini", mini)
    assert task.outputs.name == "mini" and task.spec["data"]["sources"]["one"]["repo"] == "a/b"
    missed = {
        "phases": lambda: task.phases,
        "prompt": lambda: task.prompt("x"),
        "regression": lambda: task.output_schema,
        "gold": lambda: task.gold_columns,
        "data.test": lambda: task.test_path("gold"),
        "data.train": lambda: task.raw_sets,
    }
    for key, miss in missed.items():
        with pytest.raises(UserError) as caught:
            miss()
        assert caught.value.problems[0].startswith(f"mini has no {key} yet: add '{key}' to recipes/mini/task.yml")


def test_an_extraction_task_needs_all_its_parts(mini):
    edit(mini, "data:\n", "data:\n  sources: {}\n")
    edit(mini, "  test: {input: eval.jsonl, gold: gold.csv}\n", "")
    edit(mini, "phases: [phase1, phase2]\n", "")
    found = "\n".join(problems(mini))
    assert "'phases' is a required property" in found and "data: 'test' is a required property" in found
    assert "data.sources" in found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a/b", "ab", "data.sources.one.repo"),
        ("*.jsonl", "", "data.sources.one.files.0"),
        ("one:", "One:", "data.sources"),
        ("license", "licence", "data.sources.one.licence: unknown key; the keys here are repo, revision, files"),
    ],
)
def test_wrong_sources(mini, old, new, expected):
    source = "  sources: {one: {repo: a/b, revision: main, files: ['*.jsonl'], license: CC0}}\n"
    edit(mini, "data:\n", "data:\n" + source)
    assert load_task("mini", mini)
    edit(mini, source, source.replace(old, new))
    assert any(expected in problem and ":12:" in problem for problem in problems(mini))


REGRESSION = """\
name: mini
kind: regression
title: 小さな課題
summary: A task for tests.
phases: [phase1, phase2]
variants: {alone: [phase2]}
regression: {group: speaker, targets: {a: {scale: [1, 7]}, b: {title: B, scale: [0, 10]}}}
data:
  train: {one: {}}
  test: {input: in.jsonl, gold: gold.csv}
"""


def write_regression(root, text=REGRESSION):
    (root / "recipes" / "mini" / "task.yml").write_text(text, encoding="utf-8")


def test_a_variant_has_phases_and_outputs_of_its_own_and_shares_the_rest(mini):
    write_regression(mini)
    task, alone = load_task("mini", mini), load_task("mini:alone", mini)
    assert (task.phases, alone.phases) == (["phase1", "phase2"], ["phase2"])
    assert (task.outputs.name, alone.outputs.name) == ("mini", "mini_alone")
    assert alone.name == "mini:alone" and alone.raw_dir == task.raw_dir
    numbers = {
        "a": {"type": "number", "minimum": 1, "maximum": 7},
        "b": {"type": "number", "minimum": 0, "maximum": 10},
    }
    assert alone.output_schema["properties"] == numbers and alone.output_schema["required"] == ["a", "b"]
    with pytest.raises(UserError, match="no variant 'fast' in it; the task's variants are: mini:alone"):
        load_task("mini:fast", mini)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("scale: [1, 7]", "scale: [7, 1]", "regression.targets.a.scale: found [7, 1], expected [least, greatest]"),
        ("scale: [1, 7]", "scales: [1, 7]", "regression.targets.a.scales: unknown key"),
        ("{a: {", "{overall: {", "regression.targets: 'overall' does not match"),  # a row of the scores' table
        ("regression: {group", "regress: {group", "'regression' is a required property"),
        ("alone: [phase2]", "alone: [phase9]", "variants.alone.0: recipes/mini/phase9.yml does not exist"),
        ("alone: [", "Alone: [", "variants: 'Alone' does not match"),
    ],
)
def test_wrong_regressions(mini, old, new, expected):
    write_regression(mini, REGRESSION.replace(old, new))
    assert any(expected in problem for problem in problems(mini)), problems(mini)
