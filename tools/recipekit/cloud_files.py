"""What a SageMaker job needs from here, in S3 under the name of its content: what is there is not sent again."""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit.aws import Aws
from recipekit.console import progress
from recipekit.errors import UserError
from recipekit.hub import TOKEN_NAMES, setting, sha256
from recipekit.task import Task
from strip_lock import strip

CODE = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", "tools", "deepspeed_configs", "recipes/*.json")


@dataclass(frozen=True)
class Upload:
    """A file in S3.

    Attributes:
        content: A file here, or bytes.
        key: Its key in the bucket.
        sha256: Of the content, which stands in the key as well.
    """

    content: Path | bytes
    key: str
    sha256: str

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def file_upload(path: Path, prefix: str) -> Upload:
    """Name a file by its content."""
    found = sha256(path)
    return Upload(path, f"{prefix}/files/{found}/{path.name}", found)


def bytes_upload(content: bytes, name: str, prefix: str) -> Upload:
    """Name bytes by themselves."""
    found = hashlib.sha256(content).hexdigest()
    return Upload(content, f"{prefix}/files/{found}/{name}", found)


def manifest(files: list[Upload], bucket: str, prefix: str) -> Upload:
    """List data files for one channel of a job, as SageMaker's ManifestFile wants it."""
    folder = f"{prefix}/files/"
    names = sorted({upload.key.removeprefix(folder) for upload in files})
    return bytes_upload(json.dumps([{"prefix": f"s3://{bucket}/{folder}"}, *names]).encode(), "manifest.json", prefix)


def code_archive(task: Task, config: dict[str, Any]) -> bytes:
    """Pack what a job runs: tools, the task's recipe, the lock, and a base model that lies here; always the same bytes.

    Only what is named goes: no .env, no data.

    Raises:
        UserError: A file holds the Hub's token.
    """
    root = task.root
    tokens = [token for name in TOKEN_NAMES if (token := setting(root, name))]
    places = [path for pattern in (*CODE, "recipes/cpu.yml") for path in sorted(root.glob(pattern))] + [task.dir]
    base = root / config["base_model"]
    places += [base] if base.is_dir() else []
    files = {
        path.relative_to(root).as_posix(): path
        for place in places
        for path in ([place] if place.is_file() else sorted(place.rglob("*")))
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")
    }
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            if any(token.encode() in content for token in tokens):
                raise UserError(f"{name}: holds the Hub's token, which must not go into a job; take it out")
            if name == "uv.lock":
                content = strip(content.decode()).encode()  # a mirror's address may hold a password
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def send(aws: Aws, bucket: str, uploads: list[Upload]) -> tuple[int, int]:
    """Send what the bucket does not have.

    Returns:
        How many files were sent, and how many bytes.

    Raises:
        UserError: The bucket cannot be reached, read or written.
    """
    with aws.explained(f"bucket {bucket}"):
        aws.s3.head_bucket(Bucket=bucket)
    unique = {upload.key: upload for upload in uploads}
    sent = [upload for upload in unique.values() if not _is_there(aws, bucket, upload)]
    with progress("uploading", sum(upload.size for upload in sent)) as advance:
        for upload in sent:
            with aws.explained(f"uploading {upload.key}"):
                stream = io.BytesIO(upload.content) if isinstance(upload.content, bytes) else upload.content.open("rb")
                with stream:
                    aws.s3.upload_fileobj(stream, bucket, upload.key, Callback=advance)
    return len(sent), sum(upload.size for upload in sent)


def _is_there(aws: Aws, bucket: str, upload: Upload) -> bool:
    from botocore.exceptions import ClientError

    with aws.explained(f"looking for {upload.key}"):
        try:
            return aws.s3.head_object(Bucket=bucket, Key=upload.key)["ContentLength"] == upload.size
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return False
            raise
