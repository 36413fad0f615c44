"""Archives that harm, and archives that do not."""

import io
import os
import stat
import subprocess
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipekit import cloud_results, local_files
from recipekit.errors import UserError
from recipekit.local_files import unpack

FILES = {"talk/a.json": b"{}", "talk/日本語 ｶﾅ.json": "「か\u3099」😀".encode(), "LICENSE": b"free" * 5000}
COMPRESSED = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".TAR.XZ": "w:xz"}


def make_tar(path, entries, mode="w"):
    """Write a tar file of names with content, or of TarInfo."""
    with tarfile.open(path, mode) as out:
        for name, data in entries:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


def make_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in entries:
            out.writestr(name, data)
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def problems(path, folder):
    with pytest.raises(UserError) as caught:
        unpack(path, folder)
    return caught.value.problems


@pytest.mark.parametrize("ending", [*COMPRESSED, ".zip", ".tar.zst"])
def test_every_kind_of_archive(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".zip":
        make_zip(path, FILES.items())
    elif ending == ".tar.zst":
        import pyarrow as pa

        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(make_tar(tmp_path / "plain.tar", FILES.items()).read_bytes())
    else:
        make_tar(path, FILES.items(), COMPRESSED[ending])
    assert local_files.is_archive(path)
    unpack(path, tmp_path / "out")
    assert content(tmp_path / "out") == FILES


OUTSIDE = ["../out.txt", "a/../../out.txt", "/etc/out.txt", "C:\\out.txt", "..\\out.txt", "C:out.txt"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_paths_out_of_the_folder_are_all_named_and_nothing_is_written_there(tmp_path, make):
    path = make(tmp_path / ("a.zip" if make is make_zip else "a.tar"), [(name, b"x") for name in OUTSIDE])
    found = problems(path, tmp_path / "in" / "deep")
    assert [line.split(": a path out of the folder: ")[0] for line in found] == [f"{path.name}: {n}" for n in OUTSIDE]
    assert content(tmp_path) == {path.name: path.read_bytes()}


@pytest.mark.parametrize(
    "member",
    [
        special("s", tarfile.SYMTYPE, "/etc/passwd"),
        special("s", tarfile.SYMTYPE, "a"),
        special("h", tarfile.LNKTYPE, "a"),
        special("c", tarfile.CHRTYPE),
        special("b", tarfile.BLKTYPE),
        special("f", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name} {member.linkname}",
)
def test_links_and_devices_in_a_tar(tmp_path, member):
    path = make_tar(tmp_path / "a.tar", [("a", b"x"), (member, b""), (f"{member.name}/b", b"y")])
    assert [line.split(":")[1:3] for line in problems(path, tmp_path / "out")] == [
        [f" {member.name}", " a link or device"]
    ]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*")) and len(content(tmp_path / "out")) <= 1


def test_a_sparse_file_whose_holes_would_fill_the_disk(tmp_path):
    with (tmp_path / "holes").open("wb") as out:
        out.truncate(50 * 2**30)
    subprocess.run(["tar", "-S", "-cf", "a.tar", "holes"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.tar").stat().st_size < 2**20
    (line,) = problems(tmp_path / "a.tar", tmp_path / "out")
    assert line.startswith("a.tar: holes: a sparse file: is not unpacked here") and content(tmp_path / "out") == {}


def test_an_absolute_name_in_the_result_of_a_job_touches_nothing_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    before = outside.stat().st_mtime_ns
    home = tmp_path / "home"
    cloud_results._extract(make_tar(tmp_path / "a.tar", [(str(outside), b"theirs")]), home)
    assert outside.read_bytes() == b"mine" and outside.stat().st_mtime_ns == before
    assert (home / str(outside).lstrip("/")).read_bytes() == b"theirs"


def test_names_that_a_disk_may_take_for_one_are_not_written_over(tmp_path, monkeypatch):
    """As on disks that do not tell large letters from small ones."""
    path = make_tar(tmp_path / "a.tar", [("Rows.jsonl", b"x"), ("rows.jsonl", b"y")])
    write = local_files._write
    monkeypatch.setattr(local_files, "_write", lambda stream, to: write(stream, to.with_name(to.name.lower())))
    assert problems(path, tmp_path / "out") == ["a.tar: holds rows.jsonl twice; unpack it yourself and name the folder"]
    assert content(tmp_path / "out") == {"rows.jsonl": b"x"}


def test_a_link_in_a_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a", b"x"), (zip_link("l"), b"/etc/passwd")])
    assert [line.split(":")[1:3] for line in problems(path, tmp_path / "out")] == [[" l", " a link or device"]]
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(local_files, "FLOOR", 2**20)
    for path in (
        make_tar(tmp_path / "a.tar.xz", [(f"{i}", bytes(2**20)) for i in range(20)], "w:xz"),
        make_tar(tmp_path / "a.tar.gz", [("a", bytes(20 * 2**20))], "w:gz"),
        make_zip(tmp_path / "a.zip", [(f"{i}", bytes(2**20)) for i in range(20)]),
    ):
        out = tmp_path / f"out {path.name}"
        (line,) = problems(path, out)
        assert line.startswith(f"{path.name}: unpacks to ") and "more than" in line
        limit = max(2**20, 200 * path.stat().st_size)
        assert sum(map(len, content(out).values())) <= limit


def test_a_zip_that_understates_its_size(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a", b"x" * 5000)])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + offset
        data[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    (line,) = problems(path, tmp_path / "out")
    assert "damaged" in line and sum(map(len, content(tmp_path / "out").values())) <= 10


@pytest.mark.parametrize("ending", [*COMPRESSED, ".zip"])
def test_a_cut_or_damaged_archive(tmp_path, ending):
    files = [("a", os.urandom(200_000)), ("b", b"x")]
    path = tmp_path / f"a{ending}"
    make_zip(path, files) if ending == ".zip" else make_tar(path, files, COMPRESSED[ending])
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"not an archive, but a text " * 50, b""):
        path.write_bytes(data)
        (line,) = problems(path, tmp_path / "out")
        assert "it is damaged or cut, so get it again" in line


def test_an_encrypted_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a", b"x")])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    assert problems(path, tmp_path / "out")[0].startswith("a.zip: a: encrypted")


def test_a_name_twice(tmp_path):
    path = make_tar(tmp_path / "a.tar", [("d/a", b"x"), ("d/a", b"y")])
    assert problems(path, tmp_path / "out") == ["a.tar: holds d/a twice; unpack it yourself and name the folder"]


def test_a_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        path = make_tar(tmp_path / "a.tar", [("a", os.urandom(3 * 2**20))])
        expected = "a.tar: cannot be unpacked, No space left on device; make room, or see to its rights"
        assert problems(path, small / "out") == [expected]
    finally:
        subprocess.run(["umount", small], check=True)


NAMES = st.text(st.sampled_from("ab./\\:C"), min_size=1, max_size=12)


@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), zipped=st.booleans())
def test_nothing_ever_lands_outside(tmp_path_factory, names, zipped):
    place = tmp_path_factory.mktemp("place")
    entries = [(name, b"x") for name in names]
    path = make_zip(place / "a.zip", entries) if zipped else make_tar(place / "a.tar", entries)
    inside = place / "one" / "two" / "in"
    inside.mkdir(parents=True)
    try:
        unpack(path, inside)
    except UserError as error:
        assert all(line.startswith("a.") for line in error.problems)
    assert [file for file in content(place) if not file.startswith(("one/two/in/", "a."))] == []
