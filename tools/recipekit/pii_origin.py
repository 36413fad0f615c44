"""Whence masked and restored files come: the record of their download goes with them, with what was changed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipekit.dataset_files import SOURCE
from recipekit.errors import UserError
from recipekit.runs import read_record, relative, write_text

MASKED = "personal information masked by tools/mask_pii.py"
_OWN = ("changed", "files")  # keys that tell of files, not of where they come from


def find(paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Read the SOURCE.json of files that are to be copied into a folder; {}: they have none.

    Raises:
        UserError: They, and those in the folder already, are of several downloads, whose licences may differ.
    """
    records: dict[Path, dict[str, Any]] = {}
    for path in paths:
        places = (parent / SOURCE for parent in path.resolve().parents)
        if place := next((place for place in places if place.is_file()), None):
            records[place] = read_record(place)
    if not records:
        return {}
    if there := read_record(folder / SOURCE):
        records[folder / SOURCE] = there
    origins = [{k: v for k, v in record.items() if k not in _OWN} for record in records.values()]
    if any(other != origins[0] for other in origins):
        names = ", ".join(map(relative, records))
        raise UserError(f"{relative(folder)}: files of several downloads ({names}); give each a call and a folder")
    changed = [what for record in records.values() for what in record.get("changed", [])]
    return {**origins[0], "changed": list(dict.fromkeys(changed))}


def write(origin: dict[str, Any], folder: Path, masked: bool) -> None:
    """Write the record, if there is one, beside masked or restored copies; before these, which go nowhere without."""
    if origin:
        changed = [what for what in origin["changed"] if what != MASKED] + [MASKED] * masked
        record = {**origin, "changed": changed}
        write_text(folder / SOURCE, json.dumps(record, ensure_ascii=False, indent=2) + "\n")
