"""What finds names and addresses: rules, SudachiDict's words for names, GiNZA, and what mask_pii.py takes.

    uv pip install ginza ja-ginza          # 470 MB; nothing else here needs them
    uv run benchmarks/pii_recognisers.py

Prints recall and precision on both halves of data/samples/pii/, and articles of 500 characters a second on one core.
"""

import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import spacy
import sudachipy

from recipekit.name_rule import names_before_titles
from recipekit.pii import Scanner
from recipekit.pii_address import find_addresses
from recipekit.pii_numbers import find_numbers
from recipekit.pii_recall import SAMPLES, Place, measure, read_marked

Scan = Callable[[str], list[Place]]
ADDRESS = {
    "City",
    "Province",
    "County",
    "GPE_Other",
    "Address_Other",
    "Postal_Address",
    "Facility_Part",
    "Location_Other",
}


def rules(text: str) -> list[Place]:
    """Find numbers, addresses and names before titles, without a dictionary."""
    found = [Place(kind, start, end) for kind, start, end, _ in find_numbers(text) if kind]
    found += [Place("address", start, end) for start, end, _ in find_addresses(text)]
    return found + [Place("person", start, start + len(name)) for start, name, _ in names_before_titles(text)]


def sudachi() -> Scan:
    """Make a scanner that takes runs of words which SudachiDict holds for names of persons."""
    tokenizer = sudachipy.Dictionary().create(mode=sudachipy.SplitMode.C)

    def scan(text: str) -> list[Place]:
        kinds = [(m.begin(), m.end(), m.part_of_speech()[2] == "人名", m.surface()) for m in tokenizer.tokenize(text)]
        marks = "".join("N" if name else "s" if surface in " \u3000・" else "o" for _, _, name, surface in kinds)
        runs = re.finditer("N(?:s?N)*", marks)
        return [Place("person", kinds[run.start()][0], kinds[run.end() - 1][1]) for run in runs]

    return scan


def ginza() -> Scan:
    """Make a scanner that takes GiNZA's entities; Phone_Number and the like are numbers of any kind."""
    parts = ["parser", "lemmatizer", "tagger", "morphologizer", "bunsetu_recognizer", "compound_splitter"]
    model = spacy.load("ja_ginza", exclude=parts)
    kinds = dict.fromkeys(ADDRESS, "address") | {"Person": "person", "Phone_Number": "phone", "Email": "mail"}

    def scan(text: str) -> list[Place]:
        entities = [(kinds.get(e.label_), e.start_char, e.end_char) for e in model(text).ents]
        return [Place(kind, start, end) for kind, start, end in entities if kind]

    return scan


def union(*scans: Scan) -> Scan:
    """Take what any of them finds."""
    return lambda text: [place for scan in scans for place in scan(text)]


def chosen() -> Scan:
    """Make the scanner of mask_pii.py."""
    scanner = Scanner()
    return lambda text: [Place(f.kind, f.start, f.end) for f in scanner.scan(text)]


def speed(scan: Scan, texts: Iterable[str], seconds: float = 3) -> float:
    """Return articles of 500 characters a second of processor time."""
    started, characters = time.process_time(), 0
    for text in texts:
        scan(text)
        characters += len(text)
        if time.process_time() - started > seconds:
            break
    return characters / 500 / (time.process_time() - started)


if __name__ == "__main__":
    samples = {name: read_marked(SAMPLES / f"{name}.txt") for name in ("dev", "held_out")}
    article = "".join(text for text, _ in samples["dev"])
    articles = [article[start : start + 500] for start in range(0, len(article) - 500, 500)] * 1000
    dictionary, model, ours = sudachi(), ginza(), chosen()
    scans = {
        "rules": rules,
        "sudachi": dictionary,
        "ginza": model,
        "rules + sudachi": union(rules, dictionary),
        "rules + ginza": union(rules, model),
        "mask_pii.py": ours,
        "mask_pii.py + ginza": union(ours, model),
    }
    print(f"{'':20}{'dev: recall, precision':^36}{'held out: recall, precision':^36} articles/s")
    print(f"{'':20}" + f"{'person':>11}{'address':>12}{'all':>12} " * 2)
    for name, scan in scans.items():
        line = f"{name:20}"
        for half in samples.values():
            scores = measure(half, scan)
            line += (
                " ".join(f"{scores[k].recall:.3f} {scores[k].precision:.3f}" for k in ("person", "address", "all"))
                + " "
            )
        print(f"{line} {speed(scan, articles):8.0f}", flush=True)
