"""Files: what is damaged or hostile is refused in one line and little memory; what is written into stays what it is."""

import contextlib
import errno
import io
import os
import stat
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowsim.files import read_npz, require_distinct, require_writable, whole, write_npz

ARRAYS: dict[str, Any] = {"inputs": [[1.0]], "labels": [1], "hidden": [[0.5]], "output": [0.3], "feedback": [1.0]}
NOBODY = 65534


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- reading ---------------------------------------------------------------------------------------------------------


def npy(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(value))
    return stream.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive(*more: tuple[str, bytes], compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> bytes:
    """An .npz file with some arrays replaced, and more entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for key, value in ARRAYS.items():
            file.writestr(f"{key}.npy", replaced.get(key, npy(value)))
        for name, content in more:
            file.writestr(name, content)
    return stream.getvalue()


def changed(local: int, central: int, value: bytes) -> bytes:
    """A good file, with bytes of the first entry's local header and of its central one replaced."""
    content = bytearray(archive())
    for start, at in ((content.index(b"PK\x03\x04"), local), (content.index(b"PK\x01\x02"), central)):
        content[start + at : start + at + len(value)] = value
    return bytes(content)


def damaged_lzma() -> bytes:
    content = bytearray(archive(compression=zipfile.ZIP_LZMA))
    content[60:90] = bytes(byte ^ 0xFF for byte in content[60:90])
    return bytes(content)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return archive(("inputs.npy", npy([[2.0]])))


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **{**ARRAYS, "inputs": np.array([[{}]], dtype=object)})
    return stream.getvalue()


def bomb() -> bytes:
    """300 MB of zeros, of which everything fits together, in 300 kB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file, file.open("inputs.npy", "w") as entry:
        count = 300 * 2**20
        entry.write(header((count // 8,)))
        for _ in range(300):
            entry.write(bytes(2**20))
    return stream.getvalue()


def overlapping() -> bytes:
    """100 entries that are the same 1 MB of zeros: a directory that refers to it again and again."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy(np.zeros(2**22)))
        (entry,) = file.filelist
        for number in range(100):
            copy = zipfile.ZipInfo(f"b{number}.npy")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "flag_bits"):
                setattr(copy, name, getattr(entry, name))
            file.filelist.append(copy)
    return stream.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "declares 24 TB": (lambda: archive(inputs=header((10**12, 3))), r"inputs declares .*\(1000000000000, 3\)"),
    "declares 80 TB in a key that is not needed": (lambda: archive(("note.npy", header((10**13,)))), "note declares"),
    "declares less than it has": (lambda: archive(inputs=header((1,)) + bytes(16)), "inputs declares .* 16 bytes"),
    "declares a negative size": (lambda: archive(inputs=header((-1, -1)) + bytes(8)), "inputs cannot be read"),
    "declares nothing, of a length beyond all": (lambda: archive(inputs=header((0, 2**70))), "inputs cannot be read"),
    "broken header": (lambda: archive(inputs=b"\x93NUMPY\x01\x00\x10\x00{'descr': broken\n"), "inputs cannot be read"),
    "nested header": (lambda: archive(inputs=b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000), "inputs cannot be read"),
    "header cut off": (lambda: archive(inputs=npy([1.0])[:20]), "inputs cannot be read"),
    "unknown version": (lambda: archive(inputs=b"\x93NUMPY\x09\x00" + npy([1.0])[8:]), "version 9.0"),
    "object array": (pickled, "not an .npz file of numbers: inputs holds object"),
    "records": (lambda: archive(inputs=npy(np.zeros(1, "f8,f8"))), "inputs holds records"),
    "dates": (lambda: archive(inputs=npy(np.zeros(1, "M8[s]"))), "inputs holds datetime64"),
    "no array": (lambda: archive(("notes.txt", b"hello")), "notes.txt cannot be read"),
    "a folder inside": (lambda: archive(("folder/", b"")), "folder/ cannot be read"),
    "a key twice": (twice, "the key inputs twice"),
    "a key twice, once without its ending": (lambda: archive(("inputs", npy([[2.0]]))), "the key inputs twice"),
    "a key with a line break": (lambda: archive(("a\nb\x1b[31m.npy", b"")), r"'a\\nb\\x1b\[31m' cannot be read"),
    "a key without a name": (lambda: archive((".npy", b"")), "'' cannot be read"),
    "encrypted": (lambda: changed(6, 8, b"\x01"), "encrypted"),
    "unknown compression": (lambda: changed(8, 10, b"\x63"), "method 99; write it with numpy.savez"),
    "damaged LZMA": (damaged_lzma, "method 14"),
    "sound LZMA": (lambda: archive(compression=zipfile.ZIP_LZMA), "method 14; write it with numpy.savez"),
    "sizes that are lies": (lambda: changed(22, 24, struct.pack("<I", 2**32 - 2)), "more than 100 times"),
    "a bomb": (bomb, "unpacks to 3.1.*e.08, more than 100 times as many: store it uncompressed"),
    "entries that overlap": (overlapping, "more than 100 times"),
    "cut in half": (lambda: archive()[: len(archive()) // 2], "not an .npz file that can be read"),
    "a bit of an array": (lambda: archive().replace(np.float64(0.3).tobytes(), bytes(8)), "Bad CRC-32"),
    "a single array": (lambda: npy([[1.0]]), "a single array; write it with numpy.savez"),
    "a pickle": (lambda: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07os.getcwd\x94.", "not an .npz file"),
    "empty": (lambda: b"", "not an .npz file"),
    "an empty archive": (lambda: b"PK\x05\x06" + bytes(18), "lacks the key 'inputs'; it has none"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_problem_is_refused_in_one_line_and_little_memory(kind: str) -> None:
    make, message = HOSTILE[kind]
    Path("problem.npz").write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as refused:
            read_npz("problem.npz")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = str(refused.value)
    assert text.startswith("problem.npz ") and "\n" not in text and text.isprintable() and len(text) < 500
    assert most < 20 * 2**20  # what is declared is 80 TB at most, and 0.3 GB at least


def test_the_paths_of_things_that_are_no_files_are_refused_without_waiting() -> None:
    Path("folder").mkdir()
    os.mkfifo("fifo")
    for path, kind in [("folder", "directory"), ("fifo", "FIFO"), ("/dev/zero", "device"), ("/dev/null", "device")]:
        with pytest.raises(ValueError, match=f"^{path} cannot be read: it is a {kind}, not a file$"):
            read_npz(path)


def test_a_file_without_permission_to_read_is_named() -> None:
    write_npz("problem.npz", ARRAYS)
    Path("problem.npz").chmod(0)
    with somebody(), pytest.raises(ValueError, match=r"^problem.npz cannot be read: Permission denied$"):
        read_npz("problem.npz")


def test_good_files_are_read_as_numpy_reads_them() -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "inputs": np.asfortranarray(generator.standard_normal((5, 3))),
        "single": generator.standard_normal(4).astype(">f4"),
        "scalar": np.array(3),
        "none": np.zeros((0, 3)),
        "truth": np.array([True, False]),
        "text": np.array("exponential"),
        "name with\nline": np.arange(3),
        "zeros": np.zeros((1000, 1000)),  # which compress by 1000
    }
    for save in (np.savez, np.savez_compressed):
        save("file.npz", allow_pickle=False, **arrays)
        found = read_npz("file.npz", ["inputs"])
        assert found.keys() == arrays.keys()
        for key, value in arrays.items():
            assert found[key].dtype == value.dtype
            assert np.array_equal(found[key], value)


def test_a_missing_key_is_named_beside_those_that_are_there() -> None:
    write_npz("file.npz", {f"key{number:02}": number for number in range(12)})
    with pytest.raises(ValueError, match=r"^file.npz lacks the key 'inputs'; it has key00, .*, key09, \.\.\.$"):
        read_npz("file.npz")


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
    assert read_npz("run.npz")["inputs"] == [[1.0]]


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
