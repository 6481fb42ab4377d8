"""Files: only files are read, and what is written into stays what it is."""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowsim.files import opened, require_distinct, require_writable, whole
from flowsim.npz import read_npz, write_npz

ARRAYS: dict[str, Any] = {"inputs": [[1.0]], "labels": [1], "hidden": [[0.5]], "output": [0.3], "feedback": [1.0]}
NOBODY = 65534


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_the_paths_of_things_that_are_no_files_are_refused_without_waiting() -> None:
    Path("folder").mkdir()
    os.mkfifo("fifo")
    for path, kind in [("folder", "directory"), ("fifo", "FIFO"), ("/dev/zero", "device"), ("/dev/null", "device")]:
        with pytest.raises(ValueError, match=f"^{path} cannot be read: it is a {kind}, not a file$"), opened(path):
            pass


def test_a_file_without_permission_to_read_is_named() -> None:
    Path("data.csv").touch(mode=0)
    refused = pytest.raises(ValueError, match=r"^data.csv cannot be read: Permission denied$")
    with somebody(), refused, opened("data.csv"):
        pass


# --- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def somebody() -> Iterator[None]:
    """Without the privileges of root, whom no permissions hold back; the folder at hand takes new files of anybody."""
    if os.geteuid() != 0:
        yield
        return
    os.chmod(".", os.stat(".").st_mode | 0o777)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def write(path: str | Path, content: str = "new") -> None:
    with whole(path) as partial:
        partial.write_text(content)


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_file_has_the_mode_that_the_umask_says() -> None:
    before = os.umask(0o027)
    try:
        write("new")
    finally:
        os.umask(before)
    assert mode_of("new") == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755, 0o2660])
def test_an_existing_file_keeps_its_mode_also_while_it_is_written(mode: int) -> None:
    Path("old").write_text("old")
    os.chmod("old", mode)
    with whole("old") as partial:
        assert mode_of(str(partial)) == mode, "what is private stays so"
        partial.write_text("new")
    assert mode_of("old") == mode
    assert Path("old").read_text() == "new"
    assert os.listdir() == ["old"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_an_existing_file_keeps_its_owner() -> None:
    Path("old").write_text("old")
    os.chown("old", NOBODY, NOBODY)
    write("old")
    status = os.stat("old")
    assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)
    # somebody who may write into the file of root, but cannot give root a new one
    Path("roots").write_text("old and long")
    os.chmod("roots", 0o666)
    before = os.stat("roots")
    with somebody():
        write("roots")
    after = os.stat("roots")
    assert (after.st_uid, after.st_ino, after.st_mode) == (0, before.st_ino, before.st_mode)
    assert Path("roots").read_text() == "new"


def test_a_link_is_written_through_also_where_it_leads_to_nothing_yet() -> None:
    Path("folder").mkdir()
    Path("folder/old").write_text("old")
    os.symlink("folder/old", "first")
    os.symlink("first", "second")
    os.symlink("folder/none", "dangling")
    for name in ("second", "dangling"):
        require_writable("--output", name)
        write(name)
        assert Path(name).is_symlink()
    assert Path("folder/old").read_text() == Path("folder/none").read_text() == "new"
    assert sorted(os.listdir("folder")) == ["none", "old"]
    assert sorted(os.listdir()) == ["dangling", "first", "folder", "second"]


def test_all_names_of_a_file_have_the_new_content() -> None:
    Path("one").write_text("old and long")
    os.link("one", "two")
    write("one")
    assert Path("two").read_text() == "new"
    assert os.path.samefile("one", "two")


def test_a_fifo_is_written_into_and_is_one_still() -> None:
    """With the place for temporary files in the same folder: they are not to be taken for what replaces it."""
    os.mkfifo("fifo")
    require_writable("--output", "fifo")
    read: list[bytes] = []
    descriptor = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)  # a reader, before there is a writer
    os.set_blocking(descriptor, True)
    with open(descriptor, "rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", os.getcwd())
        reader = threading.Thread(target=lambda: read.append(file.read()))
        write_npz("fifo", ARRAYS)  # 1.6 kB: less than a pipe takes without being read
        reader.start()
        reader.join()
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    assert os.listdir() == ["fifo"]
    Path("run.npz").write_bytes(read[0])
    assert read_npz("run.npz", ["inputs"])["inputs"] == [[1.0]]


def test_a_fifo_that_nobody_reads_is_said_so_instead_of_waiting() -> None:
    os.mkfifo("fifo")
    with pytest.raises(ValueError, match=r"^fifo cannot be written: nobody reads it$"):
        write_npz("fifo", ARRAYS)
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)


def test_a_device_is_written_into_and_is_one_still() -> None:
    path = "/dev/null"
    with contextlib.suppress(PermissionError):  # as root, who could replace it, not on the system's own
        os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path = "null"
    require_writable("--output", path)
    write_npz(path, ARRAYS)
    assert stat.S_ISCHR(os.stat(path).st_mode)
    with pytest.raises(ValueError, match=r"^/dev/full cannot be written: No space left on device$"):
        write_npz("/dev/full", ARRAYS)


def test_a_name_as_long_as_names_can_be_is_written_and_a_longer_one_refused_before() -> None:
    for length in (250, 255):
        name = "r" * length
        require_writable("--output", name)
        write(name)
        write(name, "again")
        assert Path(name).read_text() == "again"
    with pytest.raises(ValueError, match="File name too long"):
        require_writable("--output", "r" * 256)


def test_a_file_in_a_folder_that_takes_no_others_is_written_into() -> None:
    Path("folder").mkdir()
    Path("folder/old").write_text("old and long")
    os.chmod("folder/old", 0o666)
    os.chmod("folder", 0o555)
    try:
        with somebody():
            require_writable("--output", "folder/old")
            write("folder/old")
            with pytest.raises(ValueError, match="--output folder/new cannot be written: folder is not a folder to"):
                require_writable("--output", "folder/new")
            with pytest.raises(PermissionError):
                write("folder/new")
    finally:
        os.chmod("folder", 0o755)
    assert Path("folder/old").read_text() == "new"
    assert os.listdir("folder") == ["old"]


def test_a_mount_is_written_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    Path("old").write_text("old and long")
    before = os.stat("old").st_ino
    monkeypatch.setattr(Path, "replace", busy)
    write("old")
    assert Path("old").read_text() == "new"
    assert os.stat("old").st_ino == before
    assert os.listdir() == ["old"]


def test_a_read_only_file_is_refused_before_and_kept() -> None:
    Path("old").write_text("old")
    os.chmod("old", 0o444)
    with somebody():
        with pytest.raises(ValueError, match=r"^--output old cannot be written: Permission denied$"):
            require_writable("--output", "old")
        with pytest.raises(PermissionError):
            write("old")
    assert Path("old").read_text() == "old"
    assert os.listdir() == ["old"]


def test_asking_whether_a_file_can_be_written_changes_nothing() -> None:
    Path("old").write_text("old")
    os.utime("old", ns=(10**18, 10**18))
    for name in ("old", "new"):
        require_writable("--output", name)
    assert os.listdir() == ["old"]
    assert Path("old").read_text() == "old"
    assert os.stat("old").st_mtime_ns == 10**18


@pytest.mark.parametrize("existing", [False, True])
def test_an_error_while_writing_leaves_everything_as_it_was(existing: bool) -> None:
    if existing:
        Path("file").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole("file") as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert os.listdir() == (["file"] if existing else [])
    assert not existing or Path("file").read_text() == "old"


def test_an_output_is_no_other_file_of_the_command_by_any_name() -> None:
    Path("problem.npz").write_text("x")
    os.link("problem.npz", "hard")
    os.symlink("problem.npz", "soft")
    os.symlink("run.npz", "dangling")
    for name in ("problem.npz", "./problem.npz", "hard", "soft"):
        with pytest.raises(ValueError, match=f"^--output {name} must be another file than FILE problem.npz$"):
            require_distinct({"--output": name}, {"FILE": "problem.npz"})
    with pytest.raises(ValueError, match=r"^--html dangling must be another file than --json run.npz$"):
        require_distinct({"--json": "run.npz", "--html": "dangling"})
    require_distinct({"--json": "a", "--html": "b", "--other": None, "--more": None}, {"FILE": "problem.npz"})
    require_distinct({"--json": "/dev/null", "--html": "/dev/null"}, {"FILE": None})


def test_an_output_is_not_where_standard_output_goes() -> None:
    before = os.dup(1)
    try:
        with open("log", "w") as log:
            os.dup2(log.fileno(), 1)
        with pytest.raises(ValueError, match=r"^--json log must be another file than standard output$"):
            require_distinct({"--json": "log"})
    finally:
        os.dup2(before, 1)
        os.close(before)
