"""The small base's own corpus: copying drills and reading tasks with many schemas, all drawn from a seed.

A reading task is an instruction that names the wanted fields, a passage in the register of local news, and the answer
as JSON. Which of the people in the passage are asked for, and with which keys, changes from task to task.
"""

import csv
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipekit.base_words import Words

SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
TITLES = ("氏", "選手", "君", "先生", "様", "")
GOLD_NAMES = ("person_name", "person_address", "person_belongs_company", "occured_locations", "police_departments")

Piece = tuple[str, bool]  # a text, and whether the model learns to write it


@dataclass
class Facts:
    """What a passage says: people and names of places and organisations, each by role."""

    people: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    text: str = ""


class Writer:
    """Writes lookups, glances and reading tasks.

    Attributes:
        keys: Synonyms in use of each key; with 1, all is asked in one order, but nothing that is true or false.
    """

    def __init__(self, corpus: dict[str, Any], rng: random.Random, keys: int = 99) -> None:
        self.corpus, self.rng, self.words, self.keys = corpus, rng, Words(corpus, rng), keys
        chars = "".join(corpus["characters"].values()).replace(" ", "") + "0123456789０１２３４５６７８９ABCDEFGHIJKL()"
        cues = random.Random("cues")
        self.chars, self.cues = chars, ["".join(cues.choices(chars, k=cues.choice([1, 1, 2, 3]))) for _ in range(40)]
        self.brackets, self.family = "()", ""

    def reading(self, size: Sequence[int], rules: int, questions: int) -> list[Piece]:
        """Write a task: instruction, passage and answer, then further questions about the same passage.

        Args:
            size: Least and most characters of the passage, roughly.
            rules: Most rules in the instruction.
            questions: Most questions asked.
        """
        rng, orders = self.rng, self.corpus["orders"]
        domains = list(self.corpus["domains"].values())
        domain = rng.choice(domains)
        facts = self.passage(domain, rng.randint(*size))
        passage = rng.choice(orders["headers"]) + facts.text
        pieces: list[Piece] = []
        for number in range(rng.randint(1, questions)):
            foreign = rng.random() < 0.08  # asks for what the passage does not tell
            about, shape, answer = self.question(*((rng.choice(domains), Facts()) if foreign else (domain, facts)))
            order = self.order(about, shape, rng.randint(0, rules) if number == 0 else 0)
            if number:
                pieces.append(("\n" + order, False))
            else:
                both = [order, passage] if rng.random() < 0.8 else [passage, order]
                pieces.append(("<s>" + rng.choice(orders["joins"]).join(both), False))
            pieces += [(rng.choice(["", "\n", "\n"]), False), (answer + "</s>", True)]
        return pieces

    def lookups(self, size: int) -> list[Piece]:
        """Write random strings, each with a cue before or behind it; then, cue after cue, the string that it marks."""
        rng, pieces, total = self.rng, [("<s>", False)], 0
        while total < size:
            gap, facts, text = rng.choice("、。の\n　と"), [], ""
            for cue in rng.sample(self.cues, rng.randint(1, 5)):
                value = "".join(rng.choices(self.chars, k=rng.randint(1, 8)))
                facts.append((cue, value))
                text += (value + cue if rng.random() < 0.7 else cue + value) + gap
                if rng.random() < 0.3:
                    text += "".join(rng.choices(self.chars, k=rng.randint(1, 6))) + gap
            rng.shuffle(facts)
            pieces.append((text + "\n", False))
            for cue, value in facts:
                pieces += [(cue + "：", False), (value + "\n", True)]
            total += 2 * len(text)
        return pieces

    def cards(self, lines: int) -> list[Piece]:
        """Write one to so many sentences about people, and then all that they tell of each, always in one shape."""
        rng, facts, fields = self.rng, Facts(), self.corpus["person_fields"]
        self.start_text()
        roles = [role for domain in self.corpus["domains"].values() for role in domain["roles"].values()]
        said = [rng.choice(rng.choice(roles)["lines"]) for _ in range(rng.randint(1, lines))]
        text = "".join(self._sentence(line, facts, "all") for line in said)
        people = [{fields[fact]["keys"][0]: one.get(fact, "") for fact in "najoh"} for one in facts.people["all"]]
        return [("<s>" + text + "\n", False), (json.dumps(people, ensure_ascii=False) + "</s>", True)]

    def glance(self, lines: int) -> list[Piece]:
        """Write a task of one to three sentences, asked for by the shape of the answer alone."""
        rng, facts = self.rng, Facts()
        self.start_text()
        domain = rng.choice(list(self.corpus["domains"].values()))
        plan = [line for line in self._plan(domain) if line[1]][: rng.randint(1, lines)]
        facts.text = "".join(self._sentence(line, facts, role, more) for line, role, more in plan)
        roles = [role for _, role, _ in plan]
        asked = {
            group: {role: spec for role, spec in domain[group].items() if role in roles or rng.random() < 0.1}
            for group in ("roles", "places", "orgs")
        }
        _, shape, answer = self.question(asked, facts)
        return [("<s>" + shape + "\n" + facts.text + "\n", False), (answer + "</s>", True)]

    def passage(self, domain: dict[str, Any], size: int) -> Facts:
        """Write a passage of about `size` characters in a domain."""
        rng, facts = self.rng, Facts()
        self.start_text()
        lines = self._plan(domain)
        parts = [self._sentence(rng.choice(domain["heads"]), facts)] if rng.random() < 0.9 else []
        for line, role, more in lines:
            if sum(map(len, parts)) > size:
                break
            if "{sur}" not in line or self.family:
                parts.append(self._sentence(line, facts, role, more))
        heads = rng.choices(self.corpus["meta_lines"], k=rng.choice([0, 0, 0, 1, 2]))
        meta = [self._sentence(line, Facts()) for line in heads]
        facts.text = "".join(line + "\n" for line in meta) + rng.choice(["", "", "\n", "　"]).join(parts)
        return facts

    def start_text(self) -> None:
        """Choose the digits and brackets of a text, and forget who was named before."""
        self.words.wide, self.brackets, self.family = self.rng.random() < 0.4, self.rng.choice(["()", "（）"]), ""
        self.words.towns, self.words.quarters = {}, []

    def _plan(self, domain: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
        """Choose the lines of a passage, each with the role of its people or names, and what else it says of them."""
        rng = self.rng
        plan: list[tuple[str, str, dict[str, Any]]] = []
        for role, spec in domain["roles"].items():
            refusals = spec["flag"]["no"] if "flag" in spec and self.keys > 1 else []
            for _ in range(rng.choice([0, 1, 1, 2])):
                no = bool(refusals) and rng.random() < 0.3
                plan.append((rng.choice(refusals if no else spec["lines"]), role, {"flag": not no}))
        for role, spec in (domain["places"] | domain["orgs"]).items():
            plan += [(rng.choice(spec["lines"]), role, {}) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
        plan += [(rng.choice(self.corpus["fillers"]), "", {}) for _ in range(rng.randint(0, 4))]
        rng.shuffle(plan)
        return plan

    def introduce(self, title: str = "") -> tuple[str, dict[str, str]]:
        """Introduce a person; returns the text and what it tells (n, a, j, o, h as in the recipe's people)."""
        rng, words, said = self.rng, self.words, {}
        template = rng.choice(self.corpus["people"])
        if title:
            template = template.replace("{n}さん", "{n}" + title).replace("{n}氏", "{n}" + title)
        elif rng.random() < 0.12:
            template = template.replace("さん", rng.choice(TITLES), 1)
        if rng.random() < 0.1:
            template = template.replace("({a})", "({a}歳)")
        template = template.replace("(", self.brackets[0]).replace(")", self.brackets[1])
        self.family, name = words.person()
        for slot in dict.fromkeys(match[1] for match in SLOT.finditer(template)):
            said[slot] = {
                "n": lambda: name,
                "a": lambda: words.number(3, 99),
                "j": words.job,
                "o": lambda: words.org(bare="「{o}」" in template),
                "h": words.home,
                "i": lambda: words.pick("industries"),
            }[slot]()
        if "元{j}" in template:
            said["j"] = "元" + said["j"].removeprefix("元")
            template = template.replace("元{j}", "{j}")
        return SLOT.sub(lambda match: said[match[1]], template), said

    def _people(self, found: list[dict[str, str]]) -> str:
        """Introduce one to three people, and add them to those found."""
        rng = self.rng
        count = rng.choice([1, 1, 1, 1, 2, 2, 3])
        told = [self.introduce() for _ in range(count)]
        found += [said for _, said in told]
        tail = f"の{self.words.number(count, count)}人" if count > 1 and rng.random() < 0.3 else ""
        return rng.choice(["と", "、", "と、"]).join(text for text, _ in told) + tail

    def _sentence(self, line: str, facts: Facts, role: str = "", more: dict[str, Any] | None = None) -> str:
        """Fill a line's slots, and add to the facts what it then says.

        People go to `role`. A place or organisation goes to the role in its slot, as in {place:venues}, or else, in a
        line without people, to `role`.
        """
        words, people, prizes = self.words, list[dict[str, str]](), list[str]()

        def fill(match: re.Match[str]) -> str:
            slot, target = match[1], match[2] or ("" if "{who}" in line else role)
            if slot == "who":
                return self._people(people)
            if slot == "sur":
                return self.family
            if slot == "num":
                return words.number(2, self.rng.choice([9, 99, 3000]))
            value = words.pick(slot + "s") if slot in ("reason", "quote") else str(getattr(words, slot)())
            if slot == "prize":
                prizes.append(value)
            if slot in ("place", "org") and target and value not in facts.names.setdefault(target, []):
                facts.names[target].append(value)
            return value

        text = SLOT.sub(fill, line)
        if role and people:
            same = {"p": prizes[0] if prizes else "", **(more or {})}
            facts.people.setdefault(role, []).extend(said | same for said in people)
        return text

    def question(self, domain: dict[str, Any], facts: Facts) -> tuple[list[str], str, str]:
        """Choose what to ask; returns what each key means, and the shape and the answer as JSON."""
        rng = self.rng
        shape: dict[str, Any] = {}
        answer: dict[str, Any] = {}
        about: list[str] = []
        roles, flat = list(domain["roles"].items()), list((domain["places"] | domain["orgs"]).items())
        for role, spec in rng.sample(roles, k=min(len(roles), rng.choice([1, 1, 2]))):
            key, found = self._key(spec), facts.people.get(role, [])
            about.append(f'"{key}"は{spec["about"]}')
            if rng.random() < 0.15:
                shape[key], answer[key] = ["..."], [person["n"] for person in found]
                continue
            fields = self._fields(spec)
            shape[key] = [{name: fact == "flag" or "..." for fact, name, _ in fields}]
            answer[key] = [{name: person.get(fact, "") for fact, name, _ in fields} for person in found]
            about += [f'"{name}"は{text}' for _, name, text in fields]
        for role, spec in rng.sample(flat, k=min(len(flat), rng.choice([0, 1, 1, 2, 2]))):
            key = self._key(spec)
            shape[key], answer[key] = ["..."], facts.names.get(role, [])
            about.append(f'"{key}"は{spec["about"]}')
        return about, json.dumps(shape, ensure_ascii=False), json.dumps(answer, ensure_ascii=False)

    def _fields(self, spec: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Choose what is asked of each person: fact, key, and what the key means."""
        rng, fields = self.rng, self.corpus["person_fields"]
        wanted = 1.0 if self.keys == 1 or rng.random() < 0.3 else rng.random()
        asked = [fact for fact in fields if fact == "n" or (rng.random() < wanted and (fact != "p" or "prize" in spec))]
        rows = [(fact, self._key(fields[fact]), fields[fact]["about"]) for fact in asked]
        if "flag" in spec and self.keys > 1 and rng.random() < 0.6:
            rows.append(("flag", self._key(spec["flag"]), spec["flag"]["about"]))
        if self.keys > 1 and rng.random() < 0.1:
            rng.shuffle(rows)
        return rows

    def _key(self, spec: dict[str, Any]) -> str:
        return str(self.rng.choice(spec["keys"][: self.keys]))

    def order(self, about: list[str], shape: str, rules: int) -> str:
        """Write an instruction: an opener, some rules, what each key means, and the shape of the answer."""
        rng, orders = self.rng, self.corpus["orders"]
        style = rng.random()
        chosen = rng.sample(orders["rules"], k=min(rules, len(orders["rules"])))
        numbered = "\n".join(f"{number}. {rule}" for number, rule in enumerate(chosen, 1))
        listed = numbered if rng.random() < 0.4 else "".join(chosen)
        parts = [listed, "。".join(about) + "。" if style > 0.25 else "", f"形：{shape}" if style < 0.8 else ""]
        rng.shuffle(parts)
        return rng.choice(orders["openers"]) + rng.choice(["", "\n"]) + "\n".join(filter(None, parts))


def drill(rng: random.Random, vocab: range, length: int, span: Sequence[int]) -> tuple[list[int], list[bool]]:
    """Draw random spans of tokens that come again after random gaps.

    Args:
        rng: Where the randomness comes from.
        vocab: Token ids to draw from.
        length: Tokens in the drill.
        span: Fewest and most tokens in a span; at least 3.

    Returns:
        Token ids, the first of them <s>, and of each whether it can be known from what stands before it.
    """
    ids, known = [1], [False]
    spans: list[list[int]] = []
    while len(ids) < length:
        old = bool(spans) and rng.random() < 0.6
        if not old:
            spans.append(rng.choices(vocab, k=rng.randint(*span)))
        chosen = rng.choice(spans) if old else spans[-1]
        gap = rng.choices(vocab, k=rng.choice([0, 0, 1, 3]))
        ids += chosen + gap
        known += [old and place > 1 for place in range(len(chosen))] + [False] * len(gap)
    return ids[:length], known[:length]


def forbidden_names(gold: Path) -> list[str]:
    """Read the names, addresses, companies, places and police stations of a gold CSV; none may occur in the corpus."""
    if not gold.exists():
        return []
    with gold.open(encoding="utf-8", newline="") as file:
        cells = [row.get(column) or "" for row in csv.DictReader(file) for column in GOLD_NAMES]
    return sorted({value for cell in cells for value in cell.split("|") if len(value) > 1})
