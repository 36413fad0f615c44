"""What the commands in tools/ share, a module a subject."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A script's own folder comes first on sys.path, where tools/evaluate.py would shadow the `evaluate` library. It goes to
# the end, and that of another checkout, which an environment may have installed, goes away.
sys.path[:] = [p for p in sys.path if not Path(p or ".", "recipekit").is_dir()] + [str(ROOT / "tools")]
