"""A small Hugging Face Hub over HTTP on this machine, enough for the real client to create, upload, list and download.

    with LocalHub() as hub:
        hub.add("dataset", "owner/name", {"a.jsonl": b"..."})
        subprocess.run(..., env=os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": WRITER})

Tokens: "hf_writer" may do everything, "hf_reader" may read, any other is refused with 401. `hub.faults` says what goes
wrong on the way: each one hits the first request whose line holds its text, and is then used up.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
LFS_FROM = 100_000  # bytes
API = r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)"
FILE = r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repo:
    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        content = [(path, hashlib.sha1(data).hexdigest()) for path, data in sorted(files.items())]
        sha = hashlib.sha1(json.dumps([len(self.commits), content]).encode()).hexdigest()
        self.commits.append((sha, dict(files)))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return commit and files of "main" or of a commit."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD /path" holds `request`.

    A status answers with that, and with `headers`; `garbled` sends other bytes of the same number, `short` fewer, as if
    it were all; `wait` is seconds before the answer. With none of these the connection is cut half-way.
    """

    request: str
    status: int | None = None
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    garbled: bool = False
    short: bool = False
    wait: float = 0


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(".safetensors") or size > LFS_FROM)


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class LocalHub:
    """Serves until the `with` block ends; repositories and LFS objects are in memory."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.requests: list[str] = []
        self.sent: Counter[str] = Counter()  # bytes of answers' bodies, by path
        self.slow = 0.0  # seconds before each 64 KiB
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, kind: str, name: str, files: dict[str, bytes], private: bool = False) -> str:
        """Commit files to a repository, which is made where it is not there; returns the commit."""
        repo = self.repos.setdefault((kind, name), Repo(private))
        for data in files.values():
            self.objects[hashlib.sha256(data).hexdigest()] = data
        return repo.commit(files)

    def files(self, kind: str, name: str) -> dict[str, bytes]:
        """Return what a repository holds now."""
        return self.repos[kind, name].commits[-1][1]

    def fault(self, request: str) -> Fault | None:
        self.requests.append(request)
        with self.lock:
            hit = next((fault for fault in self.faults if fault.request in request), None)
            if hit:
                hit.times -= 1
                self.faults = [fault for fault in self.faults if fault.times > 0]
        return hit


class Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    stored = staticmethod(lambda data: data)  # a test may have the Hub keep something else
    protocol_version = "HTTP/1.1"
    routes = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", API + r"/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", FILE + r"\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("POST", API + r"/commit/(?P<revision>[^/]+)", "commit"),
        ("GET", API + r"/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", API + r"(?:/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", FILE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
        ("HEAD", FILE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client went away
            super().handle()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.path_asked = path
        self.cut = False
        self.harm = fault = self.hub.fault(f"{self.command} {path} {self.headers.get('Range', '')}".rstrip())
        if fault and fault.status:
            self.harm = None
            self.body()
            return self.send({"error": "injected"}, fault.status, **fault.headers)
        if fault:
            time.sleep(fault.wait)
        self.cut = fault is not None and not (fault.garbled or fault.short or fault.wait)
        for method, pattern, name in self.routes:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                return getattr(self, name)(**match.groupdict())
        return self.send({"error": f"no route {self.command} {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    # -- what comes in and goes out

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, content: object, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if self.harm and self.harm.garbled:
            data = bytes(byte ^ 1 for byte in data)
        if self.harm and self.harm.short:
            data = data[: len(data) // 2]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            data = data[: len(data) // 2] if self.cut else data
            step = 2**16 if self.hub.slow else len(data) or 1
            for start in range(0, len(data), step):
                time.sleep(self.hub.slow)
                self.wfile.write(data[start : start + step])
                self.hub.sent[self.path_asked] += len(data[start : start + step])
        if self.cut:
            self.close_connection = True

    def allowed(self, repo: Repo | None, write: bool) -> bool:
        """Answer 401, 403 or 404 as the Hub does, and tell whether to go on."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", WRITER, READER):
            self.send({"error": "Invalid credentials in Authorization header"}, 401)
        elif not token and (write or repo is None or repo.private):
            self.send({"error": "Invalid username or password."}, 401)
        elif write and token == READER:
            self.send({"error": "You don't have the rights"}, 403, X_Error_Message="You don't have the rights")
        elif repo is None:
            self.send({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        else:
            return True
        return False

    def find(self, kind: str | None, repo: str, write: bool = False) -> Repo | None:
        found = self.hub.repos.get(((kind or "model").removesuffix("s/"), repo))
        return found if self.allowed(found, write) else None

    def at(self, repo: Repo, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        found = repo.at(revision or "main")
        if not found:
            self.send({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        return found

    # -- routes

    def create(self) -> None:
        asked = json.loads(self.body())
        if not self.allowed(Repo(), write=True):
            return
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        status = 409 if (kind, name) in self.hub.repos else 200
        if status == 200:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.add(kind, name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private)
        self.send({"url": f"{self.hub.endpoint}/{name}", "error": "You already created this repo"}, status)

    def validate_yaml(self) -> None:
        content = json.loads(self.body())["content"]
        problems = [] if content.startswith("---\n") else [{"message": "empty or missing yaml metadata"}]
        self.send({"errors": [], "warnings": problems})

    def preupload(self, kind: str, repo: str, revision: str) -> None:
        asked = json.loads(self.body())["files"]
        if not (found := self.find(kind, repo, write=True)):
            return
        here = found.commits[-1][1]
        answers = []
        for file in asked:
            path = file["path"]
            mode = "lfs" if is_lfs(path, file["size"]) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in here:
                entry["oid"] = hashlib.sha256(here[path]).hexdigest() if mode == "lfs" else git_oid(here[path])
            answers.append(entry)
        self.send({"files": answers})

    def lfs_batch(self, kind: str | None, repo: str) -> None:
        asked = json.loads(self.body())["objects"]
        if not self.find(kind, repo, write=True):
            return
        for entry in asked:
            if entry["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}"}}
        self.send({"transfer": "basic", "objects": asked})

    def lfs_put(self, oid: str) -> None:
        if self.cut:
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.close_connection = True
            return
        data = self.body()
        right = hashlib.sha256(data).hexdigest() == oid
        if right:
            self.hub.objects[oid] = self.stored(data)
        self.send({}, 200 if right else 400)

    def commit(self, kind: str, repo: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body().splitlines()]
        if not (found := self.find(kind, repo, write=True)):
            return
        files = dict(found.commits[-1][1])
        for entry in lines:
            value = entry["value"]
            if value.get("parentCommit", found.commits[-1][0]) != found.commits[-1][0]:
                self.send({"error": "A commit has happened since. Please refresh and try again."}, 412)
                return
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        sha = found.commit(files)
        self.send({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    def info(self, kind: str, repo: str, revision: str | None) -> None:
        if (found := self.find(kind, repo)) and (state := self.at(found, revision)):
            siblings = [{"rfilename": path} for path in state[1]]
            self.send(
                {
                    "id": repo,
                    "sha": state[0],
                    "private": found.private,
                    "siblings": siblings,
                    "tags": [],
                    "downloads": 0,
                }
            )

    def tree(self, kind: str, repo: str, revision: str) -> None:
        if (found := self.find(kind, repo)) and (state := self.at(found, revision)):
            self.send([self.entry(path, data) for path, data in state[1].items()])

    def entry(self, path: str, data: bytes) -> dict:
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
        if is_lfs(path, len(data)):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def resolve(self, kind: str | None, repo: str, revision: str, path: str) -> None:
        if not (found := self.find(kind, repo)) or not (state := self.at(found, revision)):
            return
        if path not in state[1]:
            self.send({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        data = state[1][path]
        etag = hashlib.sha256(data).hexdigest() if is_lfs(path, len(data)) else git_oid(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": state[0], "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and int(asked[1]) >= len(data):
            self.send({"error": "Range Not Satisfiable"}, 416)
        elif asked:
            start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self.send(data[start:stop], 206, **headers)
        else:
            self.send(data, **headers)
