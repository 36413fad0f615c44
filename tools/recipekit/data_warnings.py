"""What of a data report to look at first."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

FEW = 20  # values or articles; of fewer nothing is said
DOMINANT = 0.5  # share of a field's values that one value may have
ONE_SIDED = 0.95  # the same of a class
LENGTHS = 1.5  # times that articles of training and test may differ in length
CLASSES = 0.15  # that the shares of positives may differ by
FILLED = 0.25  # that the shares of positives with a value of a column may differ by
REPEATED = 0.05  # share of rows that may repeat an article
WORDS = {
    "old_prompt": (
        "{dataset}: 今のプロンプトで作られていません。regenerate_segments.py をもう一度実行してください",
        "{dataset}: made with another prompt than today's; run regenerate_segments.py again",
    ),
    "invalid": (
        "{dataset}: 回答 {number:,} 件が output_schema に合いません（check.py が行を示します）",
        "{dataset}: {number:,} answers do not fit output_schema; check.py names their lines",
    ),
    "over": (
        "{dataset}: {number:,} 行が sequence_len {limit:,} を超えています（最長 {longest:,} トークン）。"
        "学習が止まるか、行が失われます",
        "{dataset}: {number:,} rows are over sequence_len {limit:,}, the longest has {longest:,} tokens; "
        "training stops, or loses them",
    ),
    "test_over": (
        "テストの最長のプロンプトは {longest:,} トークンで、sequence_len {limit:,} を超えています。予測は分割されます",
        "the longest prompt of the test set has {longest:,} tokens, over sequence_len {limit:,}; prediction splits it",
    ),
    "stale_mix": (
        "{dataset}: 混合した後にファイルが変わっています（{files}）。regenerate_segments.py をもう一度実行してください",
        "{dataset}: files changed since they were mixed ({files}); run regenerate_segments.py again",
    ),
    "replay_share": (
        "{dataset}: リプレイの割合は {wanted:.0%} の指定に対し {reached:.1%} です（{replay} の行が足りません）",
        "{dataset}: replay is {reached:.1%} of the mix, {wanted:.0%} were asked for; {replay} has too few rows",
    ),
    "leak": (
        "テストの {number:,} 記事が {dataset} にもあります。スコアは本当より高く出ます",
        "{number:,} test articles stand in {dataset} as well; scores come out too high",
    ),
    "conflicting": (
        "{dataset}: 同じ記事なのに回答が違うものが {number:,} 記事あります",
        "{dataset}: {number:,} articles stand there with different answers",
    ),
    "duplicates": (
        "{dataset}: {number:,} 行（{share:.1%}）は前に出た記事の繰り返しです",
        "{dataset}: {number:,} rows ({share:.1%}) repeat an article",
    ),
    "no_positives": (
        "学習データに正例（抽出するもののある記事）が一つもありません",
        "the training data has no positives: articles with something to extract",
    ),
    "no_negatives": (
        "学習データに負例（抽出するもののない記事）が一つもありません",
        "the training data has no negatives: articles with nothing to extract",
    ),
    "empty_class": (
        "{path}: 「{value}」は学習データに一度も現れません。モデルはこの値を覚えられません",
        '{path}: "{value}" never occurs in the training data; the model cannot learn it',
    ),
    "never_filled": (
        "{path}: 学習データで一度も埋まっていません。モデルは空欄にすることを覚えます",
        "{path}: never filled in the training data; the model learns to leave it empty",
    ),
    "dominant": (
        "{dataset} の {path}: 一つの値 {value} が {share:.1%} を占めます。"
        "モデルは記事を読まずにこの値を答えるおそれがあります",
        "{path} in {dataset}: one value, {value}, is {share:.1%} of all; the model may learn to guess it",
    ),
    "length_shift": (
        "記事の長さ（{point}）が、学習では {train:,} 文字、テストでは {test:,} 文字です",
        "length of the articles ({point}): {train:,} characters in training, {test:,} in the test set",
    ),
    "class_shift": (
        "正例の割合が、最後のフェーズの学習データでは {train:.1%}、テストでは {test:.1%} です",
        "positives are {train:.1%} of the last phase's data, and {test:.1%} of the test set",
    ),
    "field_shift": (
        "{column}: 値のある正例の割合が、学習では {train:.1%}、テストでは {test:.1%} です",
        "{column}: {train:.1%} of the positives in training have a value, {test:.1%} in the test set",
    ),
}

Numbers = Mapping[str, Any]
Findings = Iterator[tuple[str, dict[str, Any]]]  # a key of WORDS, and the facts that its words take


def look_first(report: Numbers) -> list[dict[str, Any]]:
    """Find what is likely to spoil training, in the numbers of report.json; the gravest first.

    Returns:
        Of each finding its kind, a key of WORDS, the facts, and the words in Japanese (ja) and English (en).
    """
    names = list(dict.fromkeys(name for phase in report["phases"].values() for name in phase["datasets"]))
    trained = {name: report["datasets"][name] for name in names or report["datasets"]}
    rules: list[Callable[[Numbers, Numbers], Findings]] = [
        _broken, _too_long, _mixes, _repeated, _classes, _never_filled, _dominant, _shift,
    ]  # fmt: skip
    found = [finding for rule in rules for finding in rule(report, trained)]
    return [
        {"kind": kind, **facts} | dict(zip(("ja", "en"), (words.format(**facts) for words in WORDS[kind]), strict=True))
        for kind, facts in found
    ]


def _broken(report: Numbers, trained: Numbers) -> Findings:
    for name, found in report["datasets"].items():
        if found["old_prompt"]:
            yield "old_prompt", {"dataset": name}
        if found["invalid"]:
            yield "invalid", {"dataset": name, "number": found["invalid"]}


def _too_long(report: Numbers, trained: Numbers) -> Findings:
    for name, found in report["datasets"].items():
        if found["over"]:
            facts = {"limit": found["sequence_len"], "longest": found["tokens"]["max"]}
            yield "over", {"dataset": name, "number": found["over"], **facts}
    longest, limit = report["test"]["tokens"]["max"], report["sequence_len"]
    if longest > limit:
        yield "test_over", {"limit": limit, "longest": longest}


def _mixes(report: Numbers, trained: Numbers) -> Findings:
    for name, mix in ((name, found["mix"]) for name, found in report["datasets"].items() if found["mix"]):
        if mix["stale"]:
            yield "stale_mix", {"dataset": name, "files": ", ".join(mix["stale"])}
        wanted, reached = mix["replay_share"], mix["replay_share_reached"]
        if abs(wanted - reached) > 0.01:
            yield "replay_share", {"dataset": name, "wanted": wanted, "reached": reached, "replay": mix["replay"]}


def _repeated(report: Numbers, trained: Numbers) -> Findings:
    for name, number in report["overlaps"].get("test", {}).items():
        if number:
            yield "leak", {"dataset": name, "number": number}
    for name, again in ((name, found["duplicates"]) for name, found in report["datasets"].items()):
        if again and again["conflicting"]:
            yield "conflicting", {"dataset": name, "number": again["conflicting"]}
        rows = report["datasets"][name]["rows"]
        if again and again["normalised"] > REPEATED * rows:
            yield "duplicates", {"dataset": name, "number": again["normalised"], "share": again["normalised"] / rows}


def _classes(report: Numbers, trained: Numbers) -> Findings:
    for side in ("positives", "negatives"):
        if not any(found[side] for found in trained.values()):
            yield f"no_{side}", {}
            return  # nothing is filled, which says no more
    for path in {path: 0 for found in trained.values() for path in found["categories"]}:
        values = [found["categories"][path] for found in trained.values()]
        for value in values[0]:
            if not any(numbers[value] for numbers in values):
                yield "empty_class", {"path": path, "value": value}


def _never_filled(report: Numbers, trained: Numbers) -> Findings:
    fields = [found["fields"] for found in trained.values() if found["positives"]]
    for path in dict.fromkeys(path for field in fields for path in field):
        if not any(field[path]["filled"] for field in fields if path in field):
            yield "never_filled", {"path": path}


def _dominant(report: Numbers, trained: Numbers) -> Findings:
    for name, found in trained.items():
        for path, field in found["fields"].items():
            values = found["categories"].get(path, {})
            bar = ONE_SIDED if values else DOMINANT
            if field["filled"] < FEW or field["top_count"] < bar * field["filled"] or 0 in values.values():
                continue
            value = f"「{field['top'][0][0]}」" if field["top"] else "…"  # a name
            yield "dominant", {"dataset": name, "path": path, "value": value,
                               "share": field["top_count"] / field["filled"]}  # fmt: skip


def _shift(report: Numbers, trained: Numbers) -> Findings:
    shift = report["shift"]
    if min(shift["rows"].values()) < FEW:
        return
    for point in ("p50", "p95"):
        lengths = {side: shift["characters"][side][point] for side in ("train", "test")}
        if max(lengths.values()) > LENGTHS * min(lengths.values()):
            yield "length_shift", {"point": point, **lengths}
    if abs(shift["positives"]["train"] - shift["positives"]["test"]) > CLASSES:
        yield "class_shift", shift["positives"]
    if min(shift["rows"][side] * shift["positives"][side] for side in ("train", "test")) >= FEW:
        for column, shares in shift["gold"].items():
            if abs(shares["train"] - shares["test"]) > FILLED:
                yield "field_shift", {"column": column, **shares}
