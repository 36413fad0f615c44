"""What a SageMaker job leaves, brought home: the phase's folder, the record that it is done, and what saved memory."""

import os
import shutil
import tarfile
import tempfile
from decimal import Decimal
from pathlib import Path

from recipekit.errors import UserError
from recipekit.resolve import memory_overlay
from recipekit.runs import digest, read_record, replace_folder
from recipekit.task import Task


def unpack(task: Task, phase: str, profile: str, artifact: Path) -> Path:
    """Put the result of a job where training here would have put it; what stood there is replaced once all is well.

    That goes for what saves memory, too: with the overlay that the job had, or none, the phase counts as done here.

    Args:
        task: The task.
        phase: The phase that the job trained.
        profile: The one that it trained it on.
        artifact: The job's model.tar.gz.

    Returns:
        The phase's folder.

    Raises:
        UserError: It is no such archive, or does not hold what its record says.
    """
    task.outputs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=task.outputs, prefix=".fetch.", suffix=".tmp") as temporary:
        home = Path(temporary)
        try:
            with tarfile.open(artifact) as outer:
                outer.extractall(home, filter="data")
            _extract(home / "outputs.tar", home)
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{phase}: {artifact.name} of the job cannot be unpacked: {error}") from None
        outputs = home / task.outputs.relative_to(task.root)
        record = read_record(outputs / "state" / f"{phase}.json")
        products = record.get("products", {})
        wrong = [
            name for name, found in products.items() if not (home / name).is_file() or digest(home / name) != found
        ]
        if wrong or not products:
            what = (
                f"{', '.join(wrong)} is not what its record says" if wrong else "it has no record of a finished phase"
            )
            raise UserError(f"{phase}: the job's result is not whole: {what}; run the job again")
        overlay = memory_overlay(task, phase, profile)
        overlay.unlink(missing_ok=True)
        if (less := outputs / overlay.name).is_file():
            less.replace(overlay)
        replace_folder(outputs / phase, task.outputs / phase)
        (task.outputs / "state").mkdir(exist_ok=True)
        shutil.move(outputs / "state" / f"{phase}.json", task.outputs / "state" / f"{phase}.json")
    return task.outputs / phase


def _extract(archive: Path, home: Path) -> None:
    """Extract with times of change to the nanosecond, by which a file over 256 MiB is known; tarfile rounds them."""
    with tarfile.open(archive) as inner:
        inner.extractall(home, filter="data")
        for member in inner.getmembers():
            if member.isfile():
                nanoseconds = int(Decimal(member.pax_headers.get("mtime", str(member.mtime))) * 10**9)
                os.utime(home / member.name.lstrip("/"), ns=(nanoseconds, nanoseconds))
