"""What of a chat task's data is spread unevenly, by stated rules."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recipekit.chat_bias import SOURCE

THIN, DOMINANT = 0.25, 4.0  # times its fair share, rows / bins, that a bin has at least and at most
MOST = 0.8  # share that a bin may have however few bins there are
FEW = 20  # rows; of fewer nothing is said but that
MODEL = 0.5  # share of conversations whose replies are a model's own
REPEATED = 0.02  # share of conversations that may be near an earlier one
SAME = 0.05  # share of replies that may stand there before
LENGTH = 2.0  # times that the replies of one turn may be longer or shorter than all
NAMED = 8  # bins that a warning names
WORDS = {
    "few": (
        "会話が {rows:,} 件しかないため、偏りは判定していません（{least} 件から）",
        "only {rows:,} conversations: nothing is said of bias below {least}",
    ),
    "empty": (
        "{title}: {all} 区分のうち {number} 区分が空です（{bins}）",
        "{field}: {number} of {all} bins are empty ({names})",
    ),
    "thin": (
        "{title}: {number} 区分が公平な割り当て（{fair:.1f} 件）の4分の1に届きません（{bins}）",
        "{field}: {number} of {all} bins are below a quarter of the fair share of {fair:.1f} ({names})",
    ),
    "dominant": (
        "{title}: {number} 区分が多すぎます（{bins}。公平な割り当ては {fair:.1f} 件）",
        "{field}: {number} of {all} bins dominate ({names}; a fair share is {fair:.1f})",
    ),
    "missing": (
        "{title}: {rows:,} 件中 {number:,} 件に値がありません",
        "{field}: {number:,} of {rows:,} conversations do not say",
    ),
    "one_length": (
        "会話の {share:.0%} が {turns} ターンです。長さにばらつきがありません",
        "{share:.0%} of the conversations have {turns} turns; their lengths hardly differ",
    ),
    "turn_length": (
        "{turn} ターン目の返事の長さ（中央値 {median:g} 文字）が、全体（{whole:g} 文字）と{least:g}倍以上違います",
        "replies of turn {turn} have {median:g} characters in the median, all replies {whole:g}: {least:g} times apart",
    ),
    "model": (
        "会話の {share:.0%} は、返事がモデルの書いたままです。モデルが自分の癖を学び直すおそれがあります",
        "{share:.0%} of the conversations are the model's own words; it may learn its habits anew",
    ),
    "near": (
        "{number:,} 件（{share:.1%}）はほかの会話とほぼ同じです",
        "{number:,} conversations ({share:.1%}) are near duplicates of an earlier one",
    ),
    "same_replies": (
        "返事の {share:.1%}（{number:,} 件）は、前に出た返事と同じ文です",
        "{share:.1%} of the replies ({number:,}) stand there before, word for word",
    ),
}

Report = Mapping[str, Any]
Findings = Iterator[tuple[str, dict[str, Any]]]
Bin = tuple[str, str, int]  # label in Japanese, value, count


def warnings(report: Report) -> list[dict[str, Any]]:
    """Find what is spread unevenly, in the numbers of report.json.

    Returns:
        Of each finding its kind, a key of WORDS, the facts, and the words in Japanese (ja) and English (en).
    """
    if report["rows"] < FEW:
        found = [("few", {"rows": report["rows"], "least": FEW})]
    else:
        found = [*_fields(report), *_pair(report), *_turns(report), *_source(report), *_repeats(report)]
    return [
        {"kind": kind, **facts} | dict(zip(("ja", "en"), (words.format(**facts) for words in WORDS[kind]), strict=True))
        for kind, facts in found
    ]


def verdict(count: int, total: int, bins: int) -> str | None:
    """Judge a bin: "empty", "thin" or "dominant"; None: fair.

    Args:
        count: What it holds.
        total: What all bins hold.
        bins: How many there are.
    """
    fair = total / bins
    if count == 0:
        return "empty"
    if count < THIN * fair:
        return "thin"
    return "dominant" if count > min(DOMINANT * fair, MOST * total) else None


def _fields(report: Report) -> Findings:
    for name, field in report["fields"].items():
        if name == SOURCE:
            continue
        bins = [(one["label"], str(one["value"]), one["count"]) for one in field["bins"]]
        yield from _uneven(name, field["title"], bins)
        if field["missing"] and not field["many"]:
            yield "missing", {"field": name, "title": field["title"], "number": field["missing"],
                              "rows": report["rows"]}  # fmt: skip


def _pair(report: Report) -> Findings:
    if pair := report["pair"]:
        bins = []
        for a, row in enumerate(pair["counts"]):
            for b, count in enumerate(row):
                labels = " × ".join(pair["labels"][side][at] for side, at in enumerate((a, b)))
                bins.append((labels, f"({pair['values'][0][a]}, {pair['values'][1][b]})", count))
        yield from _uneven(" x ".join(pair["fields"]), " × ".join(pair["titles"]), bins)


def _uneven(field: str, title: str, bins: Sequence[Bin]) -> Findings:
    """Yield the bins of each verdict; of a field that no row has, nothing."""
    total = sum(count for *_, count in bins)
    if not total or len(bins) < 2:
        return
    for kind in ("empty", "thin", "dominant"):
        found = [one for one in bins if verdict(one[2], total, len(bins)) == kind]
        if not found:
            continue
        found.sort(key=lambda one: one[2], reverse=kind == "dominant")
        count = (lambda one: "") if kind == "empty" else (lambda one: f" {one[2]:,}")
        more = "…" if len(found) > NAMED else ""
        yield kind, {
            "field": field, "title": title, "number": len(found), "all": len(bins), "fair": total / len(bins),
            "bins": "、".join(f"{one[0]}{count(one)}" for one in found[:NAMED]) + more,
            "names": ", ".join(f"{one[1]}{count(one)}" for one in found[:NAMED]) + more,
        }  # fmt: skip


def _turns(report: Report) -> Findings:
    turns, share = max(report["turns"]["counts"].items(), key=lambda item: item[1])
    if share > MOST * report["rows"]:
        yield "one_length", {"turns": int(turns), "share": share / report["rows"]}
    replies = report["lengths"]["assistant"]
    for one in replies["turns"]:
        far = max(one["p50"], replies["p50"]) > LENGTH * min(one["p50"], replies["p50"])
        if one["texts"] >= FEW and far:
            yield "turn_length", {"turn": one["turn"], "median": one["p50"], "whole": replies["p50"], "least": LENGTH}


def _source(report: Report) -> Findings:
    bins = report["fields"].get(SOURCE, {"bins": []})["bins"]
    found = sum(one["count"] for one in bins if one["value"] == "model")
    if found > MODEL * report["rows"]:
        yield "model", {"share": found / report["rows"]}


def _repeats(report: Report) -> Findings:
    found = report["repeats"]
    if found["near"] > REPEATED * report["rows"]:
        yield "near", {"number": found["near"], "share": found["near"] / report["rows"]}
    if found["same_replies"] > SAME * found["replies"]:
        number = found["same_replies"]
        yield "same_replies", {"number": number, "share": number / found["replies"]}
