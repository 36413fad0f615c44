"""What of a data report to look at first."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

FEW = 20  # values or articles; of fewer nothing is said
DOMINANT = 0.5  # share of a field's values that one value may have
ONE_SIDED = 0.95  # the same of a class
LENGTHS = 1.5  # times that articles of training and test may differ in length
CLASSES = 0.15  # that the shares of positives may differ by
FILLED = 0.25  # that the shares of positives with a value of a column may differ by
REPEATED = 0.05  # share of rows that may repeat an article

Numbers = Mapping[str, Any]


class Warning(NamedTuple):
    """Something to look at.

    Attributes:
        kind: Its name for machines.
        japanese: What was found, and what that does.
        english: The same.
    """

    kind: str
    japanese: str
    english: str


def look_first(report: Numbers) -> list[Warning]:
    """Find what is likely to spoil training, in the numbers of report.json; the gravest first."""
    names = list(dict.fromkeys(name for phase in report["phases"].values() for name in phase["datasets"]))
    trained = {name: report["datasets"][name] for name in names or report["datasets"]}
    rules: list[Callable[[Numbers, Numbers], Iterator[Warning]]] = [
        _broken, _too_long, _mixes, _repeated, _classes, _never_filled, _dominant, _shift,
    ]  # fmt: skip
    return [warning for rule in rules for warning in rule(report, trained)]


def _broken(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    for name, found in report["datasets"].items():
        if found["old_prompt"]:
            yield Warning(
                "old_prompt",
                f"{name}: 今のプロンプトで作られていません。regenerate_segments.py をもう一度実行してください",
                f"{name}: made with another prompt than today's; run regenerate_segments.py again",
            )
        if found["invalid"]:
            yield Warning(
                "invalid",
                f"{name}: 回答 {found['invalid']:,} 件が output_schema に合いません（check.py が行を示します）",
                f"{name}: {found['invalid']:,} answers do not fit output_schema; check.py names their lines",
            )


def _too_long(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    for name, found in report["datasets"].items():
        if found["over"]:
            longest, limit = found["tokens"]["max"], found["sequence_len"]
            yield Warning(
                "over",
                f"{name}: {found['over']:,} 行が sequence_len {limit:,} を超えています（最長 {longest:,} トークン）。学習は止まるか、行が失われます",
                f"{name}: {found['over']:,} rows are over sequence_len {limit:,}, the longest has {longest:,} tokens; "
                "training stops, or loses them",
            )
    long = report["test"]["tokens"]["max"]
    if long > report["sequence_len"]:
        yield Warning(
            "test_over",
            f"テストの最長のプロンプトは {long:,} トークンで、sequence_len {report['sequence_len']:,} を超えています。予測は分割されます",
            f"the longest prompt of the test set has {long:,} tokens, over sequence_len {report['sequence_len']:,}; "
            "prediction splits it",
        )


def _mixes(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    for name, mix in ((name, found["mix"]) for name, found in report["datasets"].items() if found["mix"]):
        if mix["stale"]:
            files = ", ".join(mix["stale"])
            yield Warning(
                "stale_mix",
                f"{name}: 混合した後にファイルが変わっています（{files}）。regenerate_segments.py をもう一度実行してください",
                f"{name}: files changed since they were mixed ({files}); run regenerate_segments.py again",
            )
        wanted, reached = mix["replay_share"], mix["replay_share_reached"]
        if abs(wanted - reached) > 0.01:
            yield Warning(
                "replay_share",
                f"{name}: リプレイの割合は {wanted:.0%} の指定に対し {reached:.1%} です（{mix['replay']} の行が足りません）",
                f"{name}: replay is {reached:.1%} of the mix where {wanted:.0%} were asked for; {mix['replay']} is short",
            )


def _repeated(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    for name, number in report["overlaps"].get("test", {}).items():
        if number:
            yield Warning(
                "leak",
                f"テストの {number:,} 記事が {name} にもあります。スコアは本当より高く出ます",
                f"{number:,} test articles stand in {name} as well; scores come out too high",
            )
    for name, found in report["datasets"].items():
        again = found["duplicates"] or {"normalised": 0, "conflicting": 0}
        if again["conflicting"]:
            yield Warning(
                "conflicting",
                f"{name}: 同じ記事なのに回答が違うものが {again['conflicting']:,} 記事あります",
                f"{name}: {again['conflicting']:,} articles stand there with different answers",
            )
        if again["normalised"] > REPEATED * found["rows"]:
            share = again["normalised"] / found["rows"]
            yield Warning(
                "duplicates",
                f"{name}: {again['normalised']:,} 行（{share:.1%}）は前に出た記事の繰り返しです",
                f"{name}: {again['normalised']:,} rows ({share:.1%}) repeat an article",
            )


def _classes(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    sides = (("positives", "抽出するもののある記事（正例）"), ("negatives", "抽出するもののない記事（負例）"))
    for side, japanese in sides:
        if not sum(found[side] for found in trained.values()):
            yield Warning(
                "empty_class", f"学習データに{japanese}が一つもありません", f"the training data has no {side} at all"
            )
    for path, values in _joined(trained, "categories").items():
        for value, number in values.items():
            if not number:
                yield Warning(
                    "empty_class",
                    f"{path}: 「{value}」は学習データに一度も現れません。モデルはこの値を覚えられません",
                    f'{path}: "{value}" never occurs in the training data; the model cannot learn it',
                )


def _never_filled(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    filled: dict[str, int] = {}
    for found in trained.values():
        for path, field in found["fields"].items():
            filled[path] = filled.get(path, 0) + field["filled"]
    for path in (path for path, number in filled.items() if not number):
        yield Warning(
            "never_filled",
            f"{path}: 学習データで一度も埋まっていません。モデルは空欄を覚えます",
            f"{path}: never filled in the training data; the model learns to leave it empty",
        )


def _dominant(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    for name, found in trained.items():
        for path, field in found["fields"].items():
            values = found["categories"].get(path)
            bar = ONE_SIDED if values else DOMINANT
            if field["filled"] < FEW or field["top_count"] < bar * field["filled"] or 0 in (values or {}).values():
                continue
            share = field["top_count"] / field["filled"]
            value = f"「{field['top'][0][0]}」" if field["top"] else "一つの値（人名のため伏せています）"
            english = f'"{field["top"][0][0]}"' if field["top"] else "one value (a name, not shown)"
            yield Warning(
                "dominant",
                f"{name} の {path}: {value}が {share:.1%} を占めます。モデルは読まずにこの値を答えるおそれがあります",
                f"{path} in {name}: {english} is {share:.1%} of the values; the model may learn to guess it",
            )


def _shift(report: Numbers, trained: Numbers) -> Iterator[Warning]:
    shift = report["shift"]
    if min(shift["rows"].values()) < FEW:
        return
    for point, name in (("p50", "中央値"), ("p95", "95%点")):
        train, test = (shift["characters"][side][point] for side in ("train", "test"))
        if max(train, test) > LENGTHS * min(train, test):
            yield Warning(
                "length_shift",
                f"記事の長さの{name}が、学習 {train:,} 文字に対しテスト {test:,} 文字と離れています",
                f"{point} of the articles' length: {train:,} characters in training, {test:,} in the test set",
            )
    train, test = shift["positives"]["train"], shift["positives"]["test"]
    if abs(train - test) > CLASSES:
        yield Warning(
            "class_shift",
            f"正例の割合が、最後のフェーズの学習データでは {train:.1%}、テストでは {test:.1%} です",
            f"positives are {train:.1%} of the last phase's data, and {test:.1%} of the test set",
        )
    if min(shift["rows"][side] * shift["positives"][side] for side in ("train", "test")) < FEW:
        return
    for column, shares in shift["gold"].items():
        if abs(shares["train"] - shares["test"]) > FILLED:
            yield Warning(
                "field_shift",
                f"{column}: 値のある正例の割合が、学習 {shares['train']:.1%} に対しテスト {shares['test']:.1%} です",
                f"{column}: {shares['train']:.1%} of the positives in training have it, {shares['test']:.1%} in the test set",
            )


def _joined(trained: Numbers, key: str) -> dict[str, dict[str, int]]:
    """Add up the numbers of several data sets."""
    joined: dict[str, dict[str, int]] = {}
    for found in trained.values():
        for path, values in found[key].items():
            for value, number in values.items():
                joined.setdefault(path, {}).setdefault(value, 0)
                joined[path][value] += number
    return joined
