"""How fast tools/regenerate_segments.py makes bigfive's rows, beside a bare loop over the same files (json, no checks).

    uv run python benchmarks/regression_rows.py data/raw/bigfive/real_persona_chat --personas 1000000

Dialogues are those of the given folder, personas the bundled ones over and over under new ids, all columns of the real
set filled up to its 5 KB a row. Each program runs in a process of its own, three times, and the fastest run counts;
memory is the largest process's peak.
"""

import itertools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
import yaml
from rich import box
from rich.table import Table

from invented import measure
from recipekit import ROOT
from recipekit.console import main, show

SAMPLE = ROOT / "data" / "samples" / "bigfive"
FILE = 100_000  # personas a file
FILLER = "地域の祭りを手伝い、季節の行事を大切にしながら、静かな毎日を送っている。" * 10
OTHERS = ("sports_persona", "arts_persona", "travel_persona", "culinary_persona", "cultural_background")
DIALOGUES = """
import glob, json, sys
people = json.load(open(sys.argv[1] + "/interlocutors.json"))
with open(sys.argv[2], "w") as out:
    for path in sorted(glob.glob(sys.argv[1] + "/dialogues/*.json")):
        talk = json.load(open(path))
        for who in talk["interlocutors"]:
            body = "\\n".join(u["text"] for u in talk["utterances"] if u["interlocutor_id"] == who)
            labels = people[who]["personality"]
            out.write(json.dumps({"speaker": who, "body": body, "labels": labels}, ensure_ascii=False) + "\\n")
"""
PERSONAS = """
import glob, json, sys
with open(sys.argv[2], "w") as out:
    for path in sorted(glob.glob(sys.argv[1] + "/*.jsonl")):
        for line in open(path):
            row = json.loads(line)
            body = row["persona"] + row["professional_persona"]
            labels = {key: row[key] for key in ("age", "sex", "occupation")}
            out.write(json.dumps({"id": row["uuid"], "body": body, "labels": labels}, ensure_ascii=False) + "\\n")
"""


def write_personas(folder: Path, rows: int) -> None:
    """Write invented personas."""
    lines = (SAMPLE / "nemotron_personas_japan" / "personas.jsonl").read_bytes().splitlines()
    own = itertools.cycle([orjson.loads(line) | dict.fromkeys(OTHERS, FILLER) for line in lines])
    folder.mkdir(parents=True)
    for start in range(0, rows, FILE):
        with (folder / f"{start:08}.jsonl").open("wb") as stream:
            for number, row in zip(range(start, min(start + FILE, rows)), own, strict=False):
                stream.write(orjson.dumps(row | {"uuid": f"{number:032x}"}) + b"\n")


def write_task(clone: Path, part: int, limit: int | None) -> None:
    """Leave one of the two files that task.yml splits, and set the limit of personas."""
    path = clone / "recipes" / "bigfive" / "task.yml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    data = spec["data"]
    [data["split"]] = [own for own in data["split"] if ("test" in own["shares"]) == (part == 0)]
    if part == 1:
        data["split"]["rows"].pop("limit", None)
        data["split"]["rows"] |= {"limit": limit} if limit else {}
    data["train"] = {name: own for name, own in data["train"].items() if name in data["split"]["shares"]}
    if part == 1:  # whose test set is a file of its own then
        data["test"] = {"input": "input.jsonl", "gold": "gold.csv"}
    path.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")


def benchmark(
    corpus: Annotated[Path, typer.Argument(help="folder with interlocutors.json and dialogues/")],
    personas: Annotated[int, typer.Option(min=1, help="invented personas")] = 200_000,
    limit: Annotated[int, typer.Option(min=1, help="rows that are chosen of them, in the last line")] = 50_000,
) -> None:
    """Time regenerate and a bare loop on dialogues and on personas."""
    table = Table("", "rows read", "regenerate", "read/s", "MB", "bare loop", "read/s", "MB", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory() as name:
        clone, raw, bare = (Path(name) / each for each in ("clone", "raw", "bare.jsonl"))
        invented = raw / "nemotron_personas_japan"
        write_personas(invented, personas)
        (raw / "real_persona_chat").symlink_to(corpus.resolve())
        (raw / "input.jsonl").write_text('{"id": "1", "body": "x"}\n')
        (raw / "gold.csv").write_text("id\n1\n")
        dialogues = 2 * sum(1 for _ in (corpus / "dialogues").iterdir())
        jobs = [
            ("speakers of dialogues", 0, dialogues, None, DIALOGUES, corpus),
            ("personas", 1, personas, None, PERSONAS, invented),
            (f"personas, limit {limit:,}", 1, personas, limit, PERSONAS, invented),
        ]
        for title, part, rows, most, loop, folder in jobs:
            shutil.rmtree(clone, ignore_errors=True)
            for each in ("tools", "recipes"):  # the tool writes into the repository that it stands in
                shutil.copytree(ROOT / each, clone / each)
            write_task(clone, part, most)
            ours, theirs = [], []
            for _ in range(3):
                shutil.rmtree(clone / "outputs", ignore_errors=True)
                command = [sys.executable, str(clone / "tools" / "regenerate_segments.py"), "bigfive"]
                ours.append(measure([*command, "--source", str(raw)]))
                theirs.append(measure([sys.executable, "-c", loop, str(folder), str(bare)]))
            cells: list[str] = []
            for seconds, megabytes in (min(ours), min(theirs)):
                cells += [f"{seconds:.1f} s", f"{rows / seconds:,.0f}", f"{megabytes:.0f}"]
            table.add_row(title, f"{rows:,}", *cells)
    show(table)


if __name__ == "__main__":
    main(benchmark)
