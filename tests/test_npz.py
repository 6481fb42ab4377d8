"""Arrays as .npz files: what is damaged or hostile is refused in one line and little memory."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowsim.npz import read_npz, write_npz

ARRAYS: dict[str, Any] = {"inputs": [[1.0]], "labels": [1], "hidden": [[0.5]], "output": [0.3], "feedback": [1.0]}


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
            read_npz("problem.npz", ARRAYS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = str(refused.value)
    assert text.startswith("problem.npz ") and "\n" not in text and text.isprintable() and len(text) < 500
    assert most < 20 * 2**20  # what is declared is 80 TB at most, and 0.3 GB at least


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
        read_npz("file.npz", ["inputs"])
