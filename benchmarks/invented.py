"""What the benchmarks share: invented labels and articles in any number, and a program's time and memory."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import orjson

FAMILY = "青柳 石渡 植松 大槻 片桐 木暮 小峰 佐伯 柴崎 杉浦 瀬川 高梨 千葉 鶴見".split()  # noqa: SIM905
GIVEN = "一郎 和子 健太 幸恵 聡 大輔 直美 浩二 真由 裕之".split()  # noqa: SIM905
TOWNS = "北浜市 南野町 東雲市 西原村 青葉市 若草町".split()  # noqa: SIM905
LAWS = "窃盗 詐欺 傷害 道路交通法違反(酒気帯び運転) 覚醒剤取締法違反 住居侵入".split()  # noqa: SIM905
CHARACTERS = [chr(code) for start, end in ((0x3041, 0x3094), (0x30A1, 0x30F4)) for code in range(start, end)]
CHARACTERS += [chr(code) for code in range(0x4E00, 0x4E00 + 1500)]
MEDIAN, SPREAD, LONGEST = 500, 0.6, 3000  # characters of an article: log-normal, cut


def label_of(rng: random.Random, crimes: float) -> dict:
    """Invent a label as the hawks task has it; a share of `crimes` has offenders."""
    if rng.random() > crimes:
        return {"persons": [], "occured_locations": [], "police_departments": []}
    town = rng.choice(TOWNS)
    persons = [
        {
            "name": rng.choice(FAMILY) + rng.choice(GIVEN), "is_real": True, "is_offender": True,
            "age": str(rng.randint(18, 90)), "position": rng.choice(["会社員", "無職", "自営業", ""]),
            "affiliation": rng.choice(["", "", "株式会社" + rng.choice(FAMILY)]),
            "address": f"{town}中央{rng.randint(1, 9)}丁目", "category": "法令違反", "act": rng.choice(LAWS),
        }
        for _ in range(rng.choice([1, 1, 1, 1, 2, 3]))
    ]  # fmt: skip
    return {"persons": persons, "occured_locations": [f"{town}本町"], "police_departments": [town[:-1] + "署"]}


def body_of(rng: random.Random, label: dict) -> str:
    """Invent an article that has the label's values in it, of a length as news articles have."""
    told = [
        f"{person['affiliation']}{person['position']}の{person['name']}容疑者({person['age']})={person['address']}="
        f"を{person['act']}の疑いで逮捕した。"
        for person in label["persons"]
    ]
    told += [f"{place}での事件。" for place in [*label["occured_locations"], *label["police_departments"]]]
    length = min(int(rng.lognormvariate(0, SPREAD) * MEDIAN), LONGEST)
    while sum(map(len, told)) < length:
        told.append("".join(rng.choices(CHARACTERS, k=rng.randint(20, 60))) + rng.choice("。\n"))
    return "".join(told)


def write_articles(path: Path, rows: int, crimes: float, seed: int = 0) -> None:
    """Write raw rows of the hawks task."""
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for number in range(rows):
            label = label_of(rng, crimes)
            row = {"id": f"{path.stem}{number:07}", "body": body_of(rng, label), "label": label}
            stream.write(orjson.dumps(row) + b"\n")


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; returns seconds and the peak memory in MB, that of its largest process."""
    started = time.perf_counter()
    code = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024


def peak_rss() -> int:
    """Read the peak of this process's resident memory, in bytes.

    `ru_maxrss` begins with what the process that started this one held; the kernel's VmHWM begins with the program.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found, "no VmHWM in /proc/self/status: this needs Linux"
    return int(found[1]) * 1024
