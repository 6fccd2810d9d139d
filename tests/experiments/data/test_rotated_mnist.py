"""Rotated MNIST from a numpy archive, and what it refuses."""

import io
import zipfile

import numpy as np
import pytest
import torch

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.data import RotatedMnist, check_mnist


def write(path, train=12_000, test=50, **changes):
    generator = np.random.default_rng(0)
    digits = np.zeros((train, 28, 28), np.uint8)
    digits[:, 4:14, 12:16] = 200  # a bar above the centre
    arrays = {
        "x_train": digits,
        "y_train": generator.integers(0, 10, train),
        "x_test": digits[:test],
        "y_test": generator.integers(0, 10, test),
    }
    np.savez_compressed(path, **{**arrays, **changes})
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write(tmp_path_factory.mktemp("mnist") / "mnist.npz")


def centre_of_mass(image):
    axis = torch.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2
    weights = image[0] / image.sum()
    return complex((weights.sum(0) * axis).sum(), -(weights.sum(1) * axis).sum())


def test_each_digit_has_its_own_angle_about_the_centre(archive):
    images = [image for image, _ in RotatedMnist(archive, "train", size=33, limit=200)]
    assert {image.shape for image in images} == {(1, 33, 33)}
    centres = np.array([centre_of_mass(image) for image in images])
    # the bar's middle is five pixels above the digit's centre, wherever it is turned to
    assert np.abs(centres) == pytest.approx(5.0, abs=0.1)
    angles = np.sort(np.angle(centres))
    assert len(np.unique(angles.round(3))) > 150
    assert np.diff(angles).max() < 0.3  # all around
    total = np.array([float(image.sum()) for image in images]) * 255
    assert total == pytest.approx(40 * 200, rel=0.02)


def test_images_are_whole_eighths_and_the_same_each_time(archive):
    first, again = (RotatedMnist(archive, "test")[7][0] for _ in range(2))
    assert torch.equal(first, again)
    assert first.dtype == torch.float32
    assert torch.equal((first * 255).round() / 255, first)


def test_splits_share_no_image_and_keep_their_labels(archive):
    labels = torch.from_numpy(np.load(archive)["y_train"])
    train, valid = (RotatedMnist(archive, split, limit=30) for split in ("train", "valid"))
    assert torch.equal(train.labels, labels[:30])
    assert torch.equal(valid.labels, labels[10_000:10_030])
    assert train[-1][1] == labels[29]
    assert check_mnist(archive) == {"train": 10_000, "valid": 2_000, "test": 50}
    with pytest.raises(IndexError, match="-30 <= index < 30"):
        train[30]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("all", {}), "`split`: received 'all'; expected one of 'train', 'valid', 'test'"),
        (("train", {"size": 28}), "`size`: received 28; expected an integer from 29 to 1023"),
        (("train", {"limit": 0}), "`limit`: received 0; expected an integer of at least 1"),
    ],
)
def test_wrong_arguments(archive, arguments, text):
    split, options = arguments
    with pytest.raises(InvalidArgumentError) as caught:
        RotatedMnist(archive, split, **options)
    assert text in str(caught.value)


def test_files_that_are_none(tmp_path):
    def message(path):
        with pytest.raises(DataError) as caught:
            RotatedMnist(path, "train")
        return str(caught.value)

    assert "received no such file" in message(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    assert "or that is damaged (BadZipFile: File is not a zip file)" in message(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert "an archive without the array `x_train`" in message(tmp_path / "other.npz")
    np.savez(tmp_path / "objects.npz", x_train=np.array([{}]), y_train=np.array([0]))
    assert "received `x_train` of object (1,)" in message(tmp_path / "objects.npz")  # pickles are not loaded
    few = write(tmp_path / "few.npz", train=100)
    assert "n at least 10,001" in message(few)
    floats = write(tmp_path / "floats.npz", x_train=np.zeros((12_000, 28, 28), np.float32))
    assert "received `x_train` of float32 (12000, 28, 28)" in message(floats)
    eleven = write(tmp_path / "eleven.npz", y_train=np.full(12_000, 11))
    assert "received labels from 11 to 11 in `y_train`" in message(eleven)
    whole = write(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert "not a .npz archive, or that is damaged" in message(tmp_path / "cut.npz")
    assert "received a path that is not a file" in message(tmp_path)


def test_a_forged_header_allocates_nothing(tmp_path):
    digits = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)}
    np.lib.format.write_array_header_1_0(digits, header)
    with zipfile.ZipFile(tmp_path / "forged.npz", "w") as archive:
        archive.writestr("x_train.npy", digits.getvalue() + bytes(100))
    with pytest.raises(DataError, match=r"`x_train` of uint8 \(1000000000, 28, 28\) in 100 bytes"):
        RotatedMnist(tmp_path / "forged.npz", "train")


def test_a_flipped_bit_is_noticed(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[len(content) // 4] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(DataError, match="or that is damaged"):
        RotatedMnist(tmp_path / "flipped.npz", "train")
