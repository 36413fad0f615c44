"""What the commands in tools/ share, a module a subject."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A script's own folder comes first on sys.path, where tools/evaluate.py would shadow the `evaluate` library.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT / "tools"] + [str(ROOT / "tools")]
