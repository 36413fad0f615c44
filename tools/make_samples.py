"""Writes the bundled sample data of a task from the frames in its source folder.

uv run tools/make_samples.py hawks
uv run tools/make_samples.py bigfive
uv run tools/make_samples.py ogiri
uv run tools/make_samples.py companion
uv run tools/make_samples.py aku
"""

import csv
import io
import random
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import jmespath
import orjson
import typer

from recipekit import (
    ROOT,
    articles,
    console,
    invented_aku,
    invented_companion,
    invented_ogiri,
    invented_people,
    sampling,
)
from recipekit.errors import UserError
from recipekit.runs import relative, write_bytes, write_text
from recipekit.sampling import Line, Pools
from recipekit.task import load_task

SENTENCE = re.compile(r"(?:「[^」]*」|[^。「])+。?")
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
WIDE_BRACKETS = str.maketrans("()", "（）")
LENGTHS = range(80, 231)  # characters
TRIES = 3000


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Pools]]:
    """Read the sources of a task and split their words between the data sets.

    Returns:
        The sources, and the words of every data set.

    Raises:
        UserError: Something in the sources is wrong; all problems at once.
    """
    sources = sampling.read_sources(folder)
    frames = [frame for name, part in sources.items() if name != "pools" for frame in sampling.all_frames(part)]
    places = sampling.words_of(sampling.all_frames(sources["pools"]))
    known = articles.SLOTS | set(sources["lists"])
    problems = [problem for frame in frames for problem in sampling.frame_problems(frame, known.__contains__)]
    problems += reference_problems(sources)
    pools = {name: [word for line in lines for word in line.split()] for name, lines in sources["pools"].items()}
    split = sampling.split_words(pools, sources["plan"]["shares"], random.Random(sources["plan"]["seed"]))
    names = [word for word in places if len(word) > 1]
    problems += [
        f"{frame.place}: the text holds '{name}', a name of {places[name]}; use another word, or drop the name"
        for frame in frames
        for name in names
        if name in frame
    ]
    if problems:
        raise UserError(problems)
    return sources, split


def reference_problems(sources: dict[str, Any]) -> Iterator[str]:
    """Yield every name in the sources that points at nothing."""
    kinds, crimes, follows = sources["kinds"], sources["crimes"], sources["follows"]
    named = [(key, kind.get(key, ""), known) for kind in kinds.values()
             for key, known in (("like", kinds), ("also", follows), ("crimes", crimes))]  # fmt: skip
    named += [(key, crime.get(key, ""), known) for crime in crimes.values()
              for key, known in (("tags", follows), ("not", kinds), ("jobs", articles.EMPLOYERS))]  # fmt: skip
    for key, line, known in named:
        for name in line.split():
            if name not in known:
                yield f"{line.place}: {key} names '{name}', which is not there; expected one of {', '.join(known)}"
    for crime in crimes.values():
        yield from topic_problems(crime["deeds"], crime["acts"].split(), crime["acts"])
    for kind in kinds.values():
        if "follow" in kind:
            yield from topic_problems(kind["follow"], {t for line in kind["lead"] for t in sampling.by_topic(line)[0]})


def topic_problems(frames: list[Line], known: Collection[str], acts: Line | None = None) -> Iterator[str]:
    """Yield topics of frames that nothing has, and acts without a deed."""
    topics = [sampling.by_topic(frame)[0] for frame in frames]
    for frame, names in zip(frames, topics, strict=True):
        for name in set(names) - set(known):
            yield f"{frame.place}: '{name}：' fits nothing; expected one of {', '.join(sorted(known))}"
    if acts is None or not all(topics):
        return
    for act in acts.split():
        if not any(act in names for names in topics):
            yield f"{acts.place}: no deed for the act {act}; write one under deeds:, or drop the act"


def quotas(shares: dict[str, float], total: int) -> list[str]:
    """Deal out `total` places by share (largest remainder); returns one name a place."""
    exact = {name: share * total / sum(shares.values()) for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return [name for name, count in counts.items() for _ in range(count)]


class Writer:
    """Writes the articles of one data set.

    What was written before, in any set, is not written again, and sets after the first use no new character.
    """

    def __init__(self, sources: dict[str, Any], pools: dict[str, Pools], pool: str, novelty: sampling.Novelty) -> None:
        self.sources, self.pools, self.novelty = sources, pools[pool], novelty
        self.alphabet = set() if pool == next(iter(pools)) else set().union(*novelty.sentences)
        words = {word for name, split in pools.items() if name != pool for part in split.values() for word in part}
        self.foreign = {word for word in words if len(word) > 1}
        self.lengths = sorted({len(word) for word in self.foreign})

    def article(self, name: str, rng: random.Random) -> tuple[str, dict[str, Any]]:
        """Write an article of a kind; returns body and label."""
        for _ in range(TRIES):
            facts, frames = self.plan(name, rng)
            skeletons = [sampling.choose(frame, rng) for frame in frames]
            body = "".join(sampling.fill(skeleton, rng, facts.value) for skeleton in skeletons)
            if len(body) not in LENGTHS or not facts.says_where(body) or self.names_foreign(body):
                continue
            style = {**(FULL_WIDTH if rng.random() < 0.2 else {}), **(WIDE_BRACKETS if rng.random() < 0.3 else {})}
            body = body.translate(style)
            if self.alphabet and not self.alphabet.issuperset(body):
                continue
            if self.novelty.take(skeletons, SENTENCE.findall(body)):
                return body, translate(facts.label(), style)
        raise UserError(f"kind {name}: nothing new after {TRIES} tries; write more frames for it, or plan fewer rows")

    def plan(self, name: str, rng: random.Random) -> tuple[articles.Facts, list[str]]:
        """Choose the facts of an article and the frames to tell them in."""
        kinds, crimes = self.sources["kinds"], self.sources["crimes"]
        kind = kinds[name]
        told = rng.choice(kind["like"].split()) if "like" in kind else name
        facts = articles.Facts(self.sources, self.pools, kind, rng)
        if "title" in kind:
            names = kind.get("crimes", " ".join(crimes)).split()
            possible = [crime for crime in names if {name, told}.isdisjoint(crimes[crime].get("not", "").split())]
            group = crimes[rng.choice(possible)]
            facts.add_crime(group)
            facts.add_offenders(group.get("negligent", False))
        frames = kinds[told]
        if "detail" not in frames:
            topic, lead = sampling.by_topic(rng.choice(frames["lead"]))
            follow = [
                text for names, text in map(sampling.by_topic, frames["follow"]) if fits(names, text, topic, lead)
            ]
            return facts, [lead, *rng.sample(follow, min(len(follow), rng.choice([2, 3, 3])))]
        optional = {tag for crime in crimes.values() for tag in crime.get("tags", "").split()}
        fitting = [p for p in frames["also"].split() if p not in optional or p in group.get("tags", "").split()]
        start, most = (["full"], 3) if rng.random() < 0.5 else (["lead", "detail"], 2)
        pools = rng.sample(fitting, rng.choice([most - 2, most - 1, most - 1, most]))
        chosen = [frames[part] for part in start] + [self.sources["follows"][pool] for pool in pools]
        return facts, [rng.choice(part) for part in chosen]

    def names_foreign(self, body: str) -> bool:
        """Tell whether a text holds a name of another data set."""
        return any(body[i : i + n] in self.foreign for n in self.lengths for i in range(len(body) - n + 1))

    def metadata(self, body: str, rng: random.Random) -> str:
        """Put a news feed's lines around an article."""
        facts = articles.Facts(self.sources, self.pools, {}, rng)
        lists = self.sources["lists"]
        top = [facts.any_of(lists["meta_top"])] if rng.random() < 0.6 else []
        bottom = [facts.any_of([frame]) for frame in rng.sample(lists["meta_bottom"], rng.choice([1, 1, 2]))]
        return "\n".join([*top, body, *bottom])


def fits(topics: list[str], text: str, topic: list[str], lead: str) -> bool:
    """Tell whether a sentence may follow a lead: same topic, and a family name alone only after the full name."""
    named = all(f"<{person}>" in lead for person in "ab" if f"<{person}fam>" in text)
    return named and (not topics or bool(set(topics) & set(topic)))


def translate(value: Any, style: dict[int, int]) -> Any:
    """Write every text in a label the way the article writes it."""
    if isinstance(value, str):
        return value.translate(style)
    if isinstance(value, list):
        return [translate(item, style) for item in value]
    return {key: translate(item, style) for key, item in value.items()} if isinstance(value, dict) else value


def write_set(
    sources: dict[str, Any], pools: dict[str, Pools], name: str, novelty: sampling.Novelty, more: bool = False
) -> list[dict]:
    """Write one data set of the plan, or what comes on top of it (`more`, articles on crimes); returns its rows."""
    plan = sources["plan"]
    wanted = plan[name]
    rng = random.Random(f"{plan['seed']} {name}{' more' if more else ''}")
    kinds = []
    counts = (wanted["crime"], wanted["other"])
    before, counts = (sum(counts), (wanted["more"], 0)) if more else (0, counts)
    for count, crime in zip(counts, (True, False), strict=True):
        shares = {k: v["share"] for k, v in sources["kinds"].items() if ("title" in v and "offender" not in v) == crime}
        kinds += quotas(shares, count)
    rng.shuffle(kinds)
    writer = Writer(sources, pools, wanted["pool"], novelty)
    rows = []
    for number, kind in enumerate(kinds, start=before + 1):
        body, label = writer.article(kind, rng)
        if rng.random() < plan["metadata_share"]:
            body = writer.metadata(body, rng)
        rows.append({"id": f"{wanted['id']}{number:0{wanted['digits']}}", "kind": kind, "body": body, "label": label})
    return rows


def gold_csv(rows: list[dict[str, Any]], gold: dict[str, Any]) -> str:
    """Write the labels of the test set the way its gold file has them; a row of an article without a crime is short."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = gold["columns"]
    owners = {name: spec["path"] + "." for name, spec in gold["entities"].items()}
    paths = [owners.get(column.get("entity"), "") + column["path"] for column in columns.values()]
    writer.writerow([gold["id"], *columns])
    for row in rows:
        cells = [jmespath.search(path, row["label"]) for path in paths]
        joined = [gold["separator"].join(values) for values in cells]
        writer.writerow([row["id"], *(joined if any(joined) else joined[:6])])
    return stream.getvalue()


def make(source: Path, output: Path, gold: dict[str, Any]) -> dict[str, int]:
    """Write all data sets of a source folder; returns rows by file name."""
    sources, pools = read(source)
    novelty = sampling.Novelty()
    written = {}
    sets = {name: value for name, value in sources["plan"].items() if isinstance(value, dict) and "id" in value}
    made = {name: write_set(sources, pools, name, novelty) for name in sets}
    for name in [name for name, wanted in sets.items() if "more" in wanted]:
        made[name] += write_set(sources, pools, name, novelty, more=True)
    for name, rows in made.items():
        test = name.endswith("_eval")
        shown = [{k: row[k] for k in ("id", "kind", "body")} for row in rows] if test else rows
        file = output / f"{name}{'_input' if test else ''}.jsonl"
        write_bytes(file, b"".join(orjson.dumps(row) + b"\n" for row in shown))
        written[file.name] = len(rows)
        if test:
            write_text(output / f"{name}_gold.csv", gold_csv(rows, gold))
    return written


def command(
    task: Annotated[str, typer.Argument(help="the task, such as hawks")],
    output: Annotated[Path | None, typer.Option(help="folder to write to; without it data/samples/TASK")] = None,
) -> None:
    """Write a task's bundled sample data anew from data/samples/TASK/source."""
    folder = ROOT / "data" / "samples" / task
    loaded = load_task(task)
    inventors = {"regression": invented_people.make, "ranking": invented_ogiri.make}
    if loaded.kind == "chat":
        inventors["chat"] = invented_aku.make if loaded.spec["chat"].get("attribute") else invented_companion.make
    if loaded.kind in inventors:
        written = inventors[loaded.kind](folder / "source", output or folder)
    else:
        written = make(folder / "source", output or folder, loaded.spec["gold"])
    for name, count in written.items():
        console.show(f"{relative(output or folder)}/{name}: {count} rows")


if __name__ == "__main__":
    console.main(command)
