"""Collecting /out: only regular files with plain names, within the limits, all or nothing."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.base.errors import Violation
from harness.runners.collect import MAX_DEPTH, Entry, collect, walk_folder, walk_tar

MAX_BYTES, MAX_FILES = 1000, 8
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A contestant's /out."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def collected(out: Path) -> Path:
    """Collects `out` and returns the destination."""
    destination = out.parent / "taken" / "here"
    collect(walk_folder(out), destination, MAX_BYTES, MAX_FILES)
    return destination


def assert_refused(out: Path, match: str, limit: bool = False) -> None:
    """Asserts that collecting `out` raises a Violation and leaves nothing behind."""
    with pytest.raises(Violation, match=match) as caught:
        collected(out)
    assert (caught.value.rule, caught.value.limit) == ("output", limit)
    assert caught.value.message.isprintable()
    assert list((out.parent / "taken").iterdir()) == []


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_files_and_folders_arrive_byte_for_byte(out: Path) -> None:
    (out / "checkpoint" / "deep").mkdir(parents=True)
    (out / "checkpoint" / "weights.0").write_bytes(bytes(range(256)))
    (out / "checkpoint" / "deep" / "x").write_bytes(b"")
    (out / "config.resolved.yaml").write_bytes(b"a: 1\n")
    assert tree(collected(out)) == tree(out)


def test_an_empty_out_arrives_as_an_empty_folder(out: Path) -> None:
    assert tree(collected(out)) == {}


def test_at_the_cap_is_within_it_and_one_byte_more_is_not(out: Path) -> None:
    (out / "a").write_bytes(b"x" * 600)
    (out / "b").write_bytes(b"x" * 400)
    collected(out)
    (out / "b").write_bytes(b"x" * 401)
    with pytest.raises(Violation, match="more than 1000 bytes") as caught:
        collected(out)
    assert caught.value.limit


def test_one_file_too_many_is_refused_and_folders_count(out: Path) -> None:
    for index in range(MAX_FILES - 1):
        (out / f"f{index}").touch()
    (out / "folder").mkdir()
    assert len(tree(collected(out))) == MAX_FILES
    (out / "folder" / "one_more").touch()
    with pytest.raises(Violation, match="more than 8 files and folders") as caught:
        collected(out)
    assert caught.value.limit


def link_to_a_file(out: Path) -> None:
    (out / "link").symlink_to("/etc/passwd")


def link_to_a_folder(out: Path) -> None:
    (out / "link").symlink_to("/etc")


def link_that_dangles(out: Path) -> None:
    (out / "link").symlink_to("nowhere")


def fifo(out: Path) -> None:
    os.mkfifo(out / "pipe")


def unix_socket(out: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        folder = os.open(out, os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{folder}/sock")  # the real path may be longer than a socket path may be
        os.close(folder)


def device(out: Path) -> None:
    try:
        os.mknod(out / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (link_to_a_file, "symbolic link"),
        (link_to_a_folder, "symbolic link"),
        (link_that_dangles, "symbolic link"),
        (fifo, "fifo"),
        (unix_socket, "socket"),
        (device, "device"),
    ],
)
def test_links_and_special_files_are_refused_by_kind_and_never_opened(
    out: Path, make: Callable[[Path], None], kind: str
) -> None:
    (out / "artifact.bin").write_bytes(b"fine")
    make(out)
    assert_refused(out, f"/out holds a {kind}: ")


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "-rf",
        "with space",
        "new\nline",
        "tail\n",
        "ünïcode",
        "semi;colon",
        "x" * 129,
        "\x1b[2J",
        "back\\slash",
        os.fsdecode(b"\xff\xfe"),
    ],
)
def test_invalid_names_are_refused_and_quoted_without_control_characters(out: Path, name: str) -> None:
    (out / name).touch()
    assert_refused(out, "an invalid name: ")


def test_folders_nested_too_deep_are_refused(out: Path) -> None:
    (out / "/".join("abcdefgh"[:MAX_DEPTH])).mkdir(parents=True)
    collected(out)
    (out / "/".join("abcdefgh"[: MAX_DEPTH + 1])).mkdir()
    with pytest.raises(Violation, match="more than 4 levels of folders") as caught:
        collected(out)
    assert caught.value.limit, "as in a runner that measures /out while the stage runs"


def test_an_earlier_destination_is_replaced_as_a_whole_and_only_by_a_complete_collection(out: Path) -> None:
    (out / "old").write_bytes(b"old")
    destination = collected(out)
    (out / "old").unlink()
    (out / "new").write_bytes(b"new")
    (out / "link").symlink_to("new")
    with pytest.raises(Violation):
        collected(out)
    assert tree(destination) == {"old": b"old"}
    (out / "link").unlink()
    assert tree(collected(out)) == {"new": b"new"}
    assert [path.name for path in destination.parent.iterdir()] == ["here"]


def test_leftovers_of_a_killed_collection_do_not_get_in(out: Path) -> None:
    partial = out.parent / "taken" / "here.partial"
    partial.mkdir(parents=True)
    (partial / "stale").touch()
    (out / "fresh").touch()
    assert tree(collected(out)) == {"fresh": b""}


def test_a_file_that_has_another_name_elsewhere_shares_nothing_afterwards(out: Path) -> None:
    (out / "a").write_bytes(b"one")
    os.link(out / "a", out.parent / "b")
    destination = collected(out)
    (out / "a").write_bytes(b"two")
    assert tree(destination) == {"a": b"one"}


# --- files that change while they are read ---


def changed_entries(out: Path, change: Callable[[], None]) -> Iterator[Entry]:
    """The entries of `out`; calls `change` before each is opened, like a process that survived the freeze."""
    for entry in walk_folder(out):
        change()
        yield entry


def collected_while(out: Path, change: Callable[[], None]) -> Path:
    destination = out.parent / "taken" / "here"
    collect(changed_entries(out, change), destination, MAX_BYTES, MAX_FILES)
    return destination


def test_a_file_that_shrinks_is_refused_and_one_that_grows_is_cut_at_its_listed_size(out: Path) -> None:
    file = out / "file"
    file.write_bytes(b"x" * 500)
    with pytest.raises(Violation, match="shrank"):
        collected_while(out, lambda: os.truncate(file, 499))
    file.write_bytes(b"x" * 500)
    taken = collected_while(out, lambda: os.truncate(file, 1 << 20))
    assert tree(taken) == {"file": b"x" * 500}


@pytest.mark.parametrize(
    "make", [link_to_a_file, fifo, lambda out: (out / "folder").mkdir(), lambda out: None]
)
def test_a_file_that_became_something_else_is_neither_followed_nor_waited_for(
    out: Path, make: Callable[[Path], None]
) -> None:
    (out / "file").write_bytes(b"x" * 10)

    def change() -> None:
        (out / "file").unlink()
        make(out)
        for other in out.iterdir():
            other.rename(out / "file")

    with pytest.raises(Violation, match="a file that cannot be read: file"):
        collected_while(out, change)
    assert not (out.parent / "taken" / "here").exists()


def test_a_second_name_of_a_file_is_refused_as_in_an_archive(out: Path) -> None:
    (out / "a").write_bytes(b"a")
    (out / "b").hardlink_to(out / "a")
    assert_refused(out, "a second name of a file: b")


def test_an_output_folder_that_was_removed_is_empty_and_one_that_became_a_link_is_refused(out: Path) -> None:
    elsewhere = out.parent / "elsewhere"
    out.rename(elsewhere)
    assert not list(collected(out).iterdir())
    out.symlink_to(elsewhere)
    with pytest.raises(Violation, match="a symbolic link: out"):
        collected(out)


# --- tar streams, as the engine sends them ---


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def untar(tmp_path: Path, members: Members) -> Path:
    """Collects /out from a tar stream that cannot seek, and returns the destination."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    destination = tmp_path / "taken" / "here"
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue()), mode="r|") as archive:
        collect(walk_tar(archive, "out"), destination, MAX_BYTES, MAX_FILES)
    return destination


ROOT_MEMBER = member("out/", kind=tarfile.DIRTYPE)


def test_a_tar_stream_arrives_like_a_folder(tmp_path: Path) -> None:
    taken = untar(
        tmp_path,
        [
            ROOT_MEMBER,
            member("out/checkpoint", kind=tarfile.DIRTYPE),
            member("out/checkpoint/w", b"weights"),
            member("out/artifact.bin", b"artifact"),
        ],
    )
    assert tree(taken) == {"checkpoint": None, "checkpoint/w": b"weights", "artifact.bin": b"artifact"}


@pytest.mark.parametrize(
    ("hostile", "match"),
    [
        (member("out/l", kind=tarfile.SYMTYPE, link="/etc/passwd"), "link or special file"),
        (member("out/l", kind=tarfile.LNKTYPE, link="out/a"), "link or special file"),
        (member("out/p", kind=tarfile.FIFOTYPE), "link or special file"),
        (member("out/d", kind=tarfile.CHRTYPE), "link or special file"),
        (member("out/d", kind=tarfile.BLKTYPE), "link or special file"),
        (member("out/s", b"x" * 512, kind=tarfile.GNUTYPE_SPARSE), "link or special file"),
        (member("out/../../escape", b"x"), "invalid name"),
        (member("../escape", b"x"), "invalid name"),
        (member("/etc/cron.d/x", b"x"), "invalid name"),
        (member("out//x", b"x"), "invalid name"),
        (member("out/./x", b"x"), "invalid name"),
        (member("out/a/b/c/d/e", b"x"), "more than 4 levels"),
        (member("out/big", b"x" * (MAX_BYTES + 1)), "more than 1000 bytes"),
    ],
)
def test_hostile_members_are_refused_and_nothing_is_left(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes], match: str
) -> None:
    with pytest.raises(Violation, match=match):
        untar(tmp_path, [ROOT_MEMBER, member("out/a", b"fine"), hostile])
    assert list((tmp_path / "taken").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_sparse_member_that_claims_to_be_huge_takes_no_space(tmp_path: Path) -> None:
    info, _ = member("out/s")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "out/s",
        "GNU.sparse.realsize": str(1 << 50),
    }
    info.size = 512
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"1\n1125899906842624\n0\n".ljust(512, b"\0")))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue()), mode="r|") as archive, pytest.raises(Violation):
        collect(walk_tar(archive, "out"), tmp_path / "here", MAX_BYTES, MAX_FILES)
    assert list(tmp_path.iterdir()) == []
