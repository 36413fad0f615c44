"""Out of memory: recognised in what a training process left behind, on a GPU or on the host."""

import json
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GPU = re.compile(
    r"(?:CUDA|HIP) out of memory|torch(?:\.cuda)?\.OutOfMemoryError|CUDA error: out of memory|cudaErrorMemoryAllocation"
    r"|(?:Cuda|CUDA) failure (?:\d+ )?'out of memory'|Failed to CUDA [mc]alloc|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_(?:ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"
)
HOST = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|^(?:\[rank\d+\]: ?)?MemoryError\b"
    r"|_ArrayMemoryError|Cannot allocate memory|std::bad_alloc|DataLoader worker \(pid.*killed by signal: Killed"
)
# What launchers say of a process that was killed: accelerate with one process, torchrun, DeepSpeed's own, a shell.
KILLED = re.compile(
    r"died with <Signals\.SIGKILL|exitcode\s*:\s*-9\b|Signal 9 \(SIGKILL\)|exits with return code = -9\b"
    r"|non-zero exit status 137"
)
TOLD = re.compile(r"(?:\[rank\d+\]: ?)?\S")  # what is indented is a traceback's source
SIZE = r"([\d.]+ ?[KMGT]i?B)"
ASKED = re.compile(rf"(?:Tried|tried) to allocate {SIZE}|Unable to allocate {SIZE}|tried to allocate (\d+) bytes")
FREE = re.compile(rf"total capacity of {SIZE} of which {SIZE} is free")
COUNTERS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


@dataclass(frozen=True)
class OutOfMemory:
    """How a training ran out of memory.

    Attributes:
        device: "gpu" or "host".
        reason: The telling line of the log, or what the process's end tells.
        stage: "loading" before the first step, "training", "evaluation", or "" where nothing tells which.
        step: The last step that was finished.
        asked: What was to be allocated, where the log tells.
        free: What was free of how much, where the log tells.
    """

    device: str
    reason: str
    stage: str
    step: int
    asked: str = ""
    free: str = ""

    def describe(self) -> str:
        """Tell it in a sentence."""
        where = {"gpu": "on the GPU", "host": "on the host"}[self.device]
        when = {
            "loading": "before the first step",
            "evaluation": f"in the evaluation after step {self.step}",
            "training": f"in step {self.step + 1}",
        }.get(self.stage, f"after step {self.step}")
        asked = f", {self.asked} more were asked for" if self.asked else ""
        free = f", {self.free} were free" if self.free else ""
        return f"out of memory {where} {when}{asked}{free} ({self.reason[:200]})"


def recognise(text: str, code: int, kills: Mapping[str, int], report: Path) -> OutOfMemory | None:
    """Tell whether a process ended for want of memory.

    Args:
        text: What it wrote.
        code: Its exit code, -N for signal N.
        kills: The kernel's counts (`kernel_kills`) from before it started.
        report: Its progress.jsonl, which it starts with its first step.
    """
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    told = [line for line in lines if TOLD.match(line)]
    killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL) or bool(KILLED.search(text))
    if line := next((line for line in told if GPU.search(line)), None):
        device, reason = "gpu", line
    elif line := next((line for line in reversed(told) if HOST.search(line)), None):
        device, reason = "host", line
    elif killed:
        device, reason = "host", _killed(kills)
    else:
        return None
    step = _last_step(report)
    stage = _stage(lines, reason) if step is not None else "loading"
    asked, free = ASKED.search(reason), FREE.search(reason)
    return OutOfMemory(
        device, reason, stage, step or 0, _size(asked) if asked else "", f"{free[2]} of {free[1]}" if free else ""
    )


def kernel_kills() -> dict[str, int]:
    """Read how many processes the kernel has killed for want of memory: of the machine, and of the control group."""
    found = {}
    for name in COUNTERS:
        with suppress(OSError):
            if match := re.search(r"^oom_kill (\d+)$", Path(name).read_text(encoding="utf-8"), re.MULTILINE):
                found[name] = int(match[1])
    return found


def _killed(before: Mapping[str, int]) -> str:
    if any(count > before.get(name, count) for name, count in kernel_kills().items()):
        return "SIGKILL; the kernel counts one more process killed for want of memory"
    return "SIGKILL, as the kernel's, or a container's, out-of-memory killer sends it"


def _size(asked: re.Match[str]) -> str:
    return asked[1] or asked[2] or f"{int(asked[3]) / 2**30:.2f} GiB"


def _stage(lines: list[str], reason: str) -> str:
    """Look for the evaluation in the traceback that stands before the reason."""
    if reason not in lines:
        return ""
    end = lines.index(reason)
    starts = [i for i in range(end) if "Traceback (most recent call last)" in lines[i]]
    trace = lines[starts[-1] : end] if starts else []
    if not trace:
        return ""
    return "evaluation" if any("evaluation_loop" in line or ", in evaluate" in line for line in trace) else "training"


def _last_step(report: Path) -> int | None:
    try:
        complete = report.read_text(encoding="utf-8").rpartition("\n")[0]
    except OSError:
        return None
    return json.loads(complete.splitlines()[-1])["step"] if complete else 0
