"""Images of ten classes: scikit-learn's digits, the IDX files of MNIST and Fashion-MNIST, or a download of MNIST."""

from __future__ import annotations

import gzip
import importlib
import math
import zlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.files import require_plausible

DATASETS = ("digits", "mnist", "fashion-mnist")

IDX_IMAGES, IDX_LABELS = 0x0803, 0x0801
"""Magic numbers: unsigned bytes in three and in one dimension."""


class Images(NamedTuple):
    """Pixels from 0 to 1, one image per row, and classes 0 .. 9; `test` is None where both are drawn from `train`."""

    train: tuple[NDArray, NDArray]
    test: tuple[NDArray, NDArray] | None


def load(dataset: str, folder: str | None, download: bool) -> Images:
    """Return the images of a data set.

    Args:
        dataset: "digits" is in scikit-learn; the others are read from IDX files.
        folder: where the IDX files are, gzipped or not.
        download: fetch MNIST from openml.org instead (kept in `folder`, or where scikit-learn keeps its data).

    Raises:
        ValueError: for arguments that do not go together, or files that cannot be read.
    """
    if dataset not in DATASETS:
        raise ValueError(f"--dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if download and dataset != "mnist":
        raise ValueError(f"--download fetches mnist, got --dataset {dataset}")
    if dataset == "digits":
        if folder is not None:
            raise ValueError(f"--data-dir goes with --dataset mnist or fashion-mnist, got {folder!r}")
        images, labels = _sklearn("datasets").load_digits(return_X_y=True)
        return Images((images / 16, labels), None)
    if download:
        return Images(*_downloaded(folder))
    if folder is None:
        raise ValueError(f"--data-dir must say where the IDX files of {dataset} are, got none")
    train, test = (_part(Path(folder), part) for part in ("train", "t10k"))
    if train[0].shape[1] != test[0].shape[1]:
        raise ValueError(f"{folder} has images of {train[0].shape[1]} pixels to train and {test[0].shape[1]} to test")
    return Images(train, test)


def _sklearn(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError:
        raise ValueError("--dataset digits and --download need scikit-learn: pip install scikit-learn") from None


def _downloaded(folder: str | None) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    datasets = _sklearn("datasets")
    try:
        images, labels = datasets.fetch_openml(
            "mnist_784", version=1, return_X_y=True, as_frame=False, data_home=folder, parser="liac-arff"
        )
    except OSError as error:
        raise ValueError(f"--download could not fetch MNIST: {error}") from None
    images, labels = images / 255, labels.astype(np.int64)
    return (images[:60000], labels[:60000]), (images[60000:], labels[60000:])


def _part(folder: Path, part: str) -> tuple[NDArray, NDArray]:
    images = read_idx(_found(folder, f"{part}-images", "idx3-ubyte"), IDX_IMAGES)
    labels = read_idx(_found(folder, f"{part}-labels", "idx1-ubyte"), IDX_LABELS)
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} images of {part} and {len(labels)} labels: not of one data set")
    if images.size == 0:
        raise ValueError(f"{folder} has no images of {part}: the sizes are {images.shape}")
    if labels.max(initial=0) > 9:
        raise ValueError(f"{folder} has labels of {part} up to {labels.max()}: the classes must be 0 .. 9")
    return images.reshape(len(images), -1) / 255, labels.astype(np.int64)


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
