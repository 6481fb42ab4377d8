"""Data sets from .npz, .csv and .parquet: the same data, which label becomes which, and one line for what is wrong."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flowsim.tables import read_dataset, read_labelled

INPUTS = np.array([[1.0, 0.1], [1 / 3, -2e-300], [-7.0, 0.30000000000000004]])


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(labels: list[Any], kind: str, column: str = "label", place: int = 1) -> str:
    frame = pd.DataFrame(INPUTS, columns=["a", "b"])
    frame.insert(place, column, labels)
    path = f"data.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("labels", "signs", "said"),
    [
        ([1, -1, 1], [1, -1, 1], ""),
        ([1.0, 1.0, 1.0], [1, 1, 1], ""),
        ([0, 1, 0], [-1, 1, -1], "label: 0 is -1, 1 is +1"),
        ([0, 0, 0], [-1, -1, -1], "label: 0 is -1, 1 is +1"),
        ([9, 4, 9], [1, -1, 1], "label: 4 is -1, 9 is +1"),
        ([0.5, 10.25, 0.5], [-1, 1, -1], "label: 0.5 is -1, 10.25 is +1"),
        (["no", "yes", "yes"], [-1, 1, 1], "label: no is -1, yes is +1"),
        (["b", "10", "b"], [1, -1, 1], "label: 10 is -1, b is +1"),
    ],
)
def test_a_table_gives_its_numbers_to_the_last_bit_and_two_labels_as_signs(
    labels: list[Any], signs: list[int], said: str, place: int, kind: str
) -> None:
    found = read_labelled(write(labels, kind, place=place))
    np.testing.assert_array_equal(found.dataset.inputs.numpy(), INPUTS)
    assert found.dataset.labels.tolist() == signs
    assert found.dataset.classes is None
    assert str(found) == said


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        ([12, 3, 5], [2, 0, 1], "kind: 3 is class 0, 5 is class 1, 12 is class 2"),
        (["c", "a", "b"], [2, 0, 1], "kind: a is class 0, b is class 1, c is class 2"),
    ],
)
def test_more_than_two_labels_are_classes_in_their_order(
    labels: list[Any], classes: list[int], said: str, kind: str
) -> None:
    found = read_labelled(write(labels, kind, "kind"), "kind")
    assert found.dataset.classes == 3
    assert found.dataset.labels.tolist() == classes
    assert str(found) == said


def test_truth_values_are_numbers() -> None:
    pd.DataFrame({"a": [True, False], "label": [False, True]}).to_parquet("data.parquet")
    dataset = read_dataset("data.parquet")
    assert dataset.inputs.tolist() == [[1.0], [0.0]]
    assert dataset.labels.tolist() == [-1.0, 1.0]


def test_a_table_of_a_spreadsheet_is_read() -> None:
    """A byte-order mark, line ends of Windows, quotes, spaces, an empty line, an ending in capitals."""
    Path("DATA.CSV").write_bytes('\ufeff"a", b ,label\r\n"1", 2 ,é\r\n\r\n3,4,"e, f"\r\n'.encode())
    found = read_labelled("DATA.CSV")
    assert found.dataset.inputs.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert str(found) == "label: e, f is -1, é is +1"


def test_an_npz_file_is_taken_as_it_is() -> None:
    np.savez("data.npz", inputs=INPUTS, labels=[1, -1, 1], other=3)
    found = read_labelled("data.npz")
    np.testing.assert_array_equal(found.dataset.inputs.numpy(), INPUTS)
    assert (found.dataset.labels.tolist(), str(found)) == ([1, -1, 1], "")
    np.savez("data.npz", inputs=INPUTS, labels=[2, 0, 0], classes=3)
    assert read_dataset("data.npz").classes == 3


CSV = {
    "nothing": (b"", "data.csv is empty: it must have a header, and a row for each sample"),
    "a header alone": (b"a,b,label\n", "data.csv must have a row for each sample, got a header alone"),
    "no such column": (
        b"a,y\n1,1\n",
        "data.csv has no column 'label': name that of the labels by --label, or label=, one of a, y",
    ),
    "semicolons": (b"a;label\n1;1\n", "data.csv has no column 'label': its columns must have commas between them"),
    "no header": (b"1.5,-1\n2,1\n", "data.csv has no column 'label': its first line must be a header, with a name"),
    "labels alone": (b"label\n1\n", "data.csv must have columns of inputs beside the labels, got 'label' alone"),
    "a name twice": (
        b"a,a,label\n1,2,1\n",
        "data.csv must have a name for each column, got 'a' twice: rename one of them",
    ),
    "an index": (
        b",a,label\n0,2,1\n",
        "data.csv must name its columns, got column 1 without a name: write the file without its index (index=False)",
    ),
    "no name": (
        b"a,,label\n0,2,1\n",
        "data.csv must name its columns, got column 2 without a name: name it in the header",
    ),
    "a long row": (
        b"a,label\n1,1\n1,2,1\n",
        "data.csv must have 2 columns everywhere as in its header, got 3 in line 3",
    ),
    "a short row": (b"a,label\n1\n", "data.csv must have 2 columns everywhere as in its header, got 1 in line 2"),
    "text": (
        b"a,b,label\n1,2,1\n\n3,red,1\n",
        "column 'b' of data.csv must hold numbers, got 'red' in line 4: encode it, or leave the column out",
    ),
    "an infinity": (
        b"a,label\n1e999,1\n",
        "column 'a' of data.csv must hold finite numbers, got '1e999' in line 2: encode it, or leave the column out",
    ),
    "a missing number": (
        b"a,label\n1,1\n NaN,1\n",
        "column 'a' of data.csv must have no missing values, got one in line 3: fill it in, or leave the row out",
    ),
    "a missing label": (
        b"a,label\n1,1\n1,\n",
        "column 'label' of data.csv must have no missing values, got one in line 3: fill it in, or leave the row out",
    ),
    "one label": (b"a,label\n1,x\n2,x\n", "column 'label' of data.csv must hold two values or more, got 'x' alone"),
    "a target that is no label": (
        b"a,label\n1,0.5\n2,1.5\n3,7\n",
        "column 'label' of data.csv must hold two values, or classes, got 3 numbers such as 0.5: "
        "name another column of labels",
    ),
    "a quote without an end": (
        b'a,label\n1,"2\n',
        "data.csv is not a .csv file in UTF-8 that can be read: unexpected end of data",
    ),
    "another encoding": ("a,label\n1,é\n".encode("latin-1"), "data.csv is not a .csv file in UTF-8 that can be read: "),
    "no table": (b"PK\x03\x04\x00\x00\n", "data.csv has no column 'label': name that of the labels by --label"),
}


@pytest.mark.parametrize(("content", "message"), CSV.values(), ids=list(CSV))
def test_whatever_is_wrong_with_a_table_is_said_in_one_line(content: bytes, message: str) -> None:
    Path("data.csv").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_dataset("data.csv")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": [1.0, None], "label": [1, 1]},
            "column 'a' of data.parquet must have no missing values, got one in row 2",
        ),
        (
            {"a": pd.array([None, 1], dtype="Int64"), "label": [1, 1]},
            "column 'a' of data.parquet must have no missing values, got one in row 1",
        ),
        ({"a": [1, 2], "label": ["x", None]}, "column 'label' of data.parquet must have no missing values"),
        (
            {"a": pd.to_datetime(["2020-01-01", "2020-01-02"]), "label": [1, 1]},
            "column 'a' of data.parquet must hold numbers, got Timestamp('2020-01-01 00:00:00') in row 1",
        ),
        ({"a": [[1], [2]], "label": [1, 1]}, "column 'a' of data.parquet must hold numbers, got "),
        ({"a": [], "label": []}, "data.parquet must have a row for each sample"),
    ],
)
def test_whatever_is_wrong_with_a_parquet_file_is_said_in_one_line(columns: dict[str, Any], message: str) -> None:
    pd.DataFrame(columns).to_parquet("data.parquet")
    with pytest.raises(ValueError) as caught:
        read_dataset("data.parquet")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.parquet", b"hello", "data.parquet is not a .parquet file that can be read: "),
        ("data.parquet", b"", "data.parquet is not a .parquet file that can be read: "),
        ("data.txt", b"a,label\n1,1\n", "data.txt must end in .npz, .csv or .parquet, and be such a file"),
        ("data", b"a,label\n1,1\n", "data must end in .npz, .csv or .parquet, and be such a file"),
        ("data.npz", b"a,label\n1,1\n", "data.npz is not an .npz file that can be read: "),
    ],
)
def test_other_files_are_refused_in_one_line(name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_dataset(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_what_is_no_file_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"^nowhere\.{kind} cannot be read: No such file or directory$"):
        read_dataset(f"nowhere.{kind}")
    Path(f"folder.{kind}").mkdir()
    with pytest.raises(ValueError, match=rf"^folder\.{kind} cannot be read: it is a directory, not a file$"):
        read_dataset(f"folder.{kind}")


def test_arrays_that_are_no_data_set_are_refused() -> None:
    good: dict[str, Any] = {"inputs": INPUTS, "labels": [1, -1, 1]}
    for changed, message in [
        ({"inputs": np.ones(3)}, r"^inputs must have shape \(n, d\), got \(3,\)$"),
        ({"labels": np.ones((3, 1))}, r"^labels must have shape \(n\), got \(3, 1\)$"),
        ({"labels": [0, 1, 1]}, r"^labels must be -1 or \+1, got 0 at index \(0,\); for labels 0 and 1"),
        ({"labels": [0, 1, 2]}, r"^labels must be -1 .*; for classes 0 \.\. 2 give classes=3$"),
        ({"labels": [0, 1, 1234567]}, r"^labels must be -1 .* give classes=1234568$"),
        ({"labels": [0, 1, -2]}, r"^labels must be -1 or \+1, got 0 at index \(0,\)$"),
        ({"classes": 1.5}, r"^classes must be an integer of at least 0, got "),
    ]:
        np.savez("data.npz", **{**good, **changed})
        with pytest.raises(ValueError, match=message):
            read_dataset("data.npz")
    np.savez("data.npz", inputs=INPUTS)
    with pytest.raises(ValueError, match=r"^data\.npz lacks the key 'labels'; it has inputs$"):
        read_dataset("data.npz")


def test_a_column_is_named_for_tables_only() -> None:
    np.savez("data.npz", inputs=INPUTS, labels=[1, -1, 1])
    with pytest.raises(ValueError, match=r"^label is for \.csv and \.parquet, got 'y' for data\.npz"):
        read_dataset("data.npz", "y")


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_a_package_that_is_not_there_is_named_with_what_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write([1, -1, 1], "parquet")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"^reading data\.parquet needs {package}: pip install '\.\[tables\]'$"):
        read_dataset(path)
    read_dataset(write([1, -1, 1], "csv") if package == "pyarrow" else _csv())


def _csv() -> str:
    Path("plain.csv").write_text("a,label\n1,1\n")
    return "plain.csv"
