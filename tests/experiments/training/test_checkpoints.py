"""Checkpoints that were damaged, or that would fill the memory, are refused."""

import zipfile

import pytest
import torch
from tiny_training import assert_equal, train

from eq_aimet.errors import DataError
from eq_aimet.experiments.training import best_weights
from eq_aimet.experiments.training.checkpoints import load_checkpoint, read_checkpoint


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    train(tmp_path, epochs=1)
    content = (tmp_path / "last.ckpt").read_bytes()
    whole = load_checkpoint(tmp_path / "last.ckpt")
    generator = torch.Generator().manual_seed(0)
    noticed = 0
    for position in torch.randint(len(content), (150,), generator=generator).tolist():
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (tmp_path / "last.ckpt").write_bytes(damaged)
        try:
            found = read_checkpoint(tmp_path / "last.ckpt")
        except DataError:
            noticed += 1
        else:  # a time stamp or a filler of the file's format
            assert_equal(whole["state_dict"], found["state_dict"])
            assert str(whole) == str(found)
    assert noticed > 50


def save_a_tensor_without_its_values(path):
    torch.save({"state_dict": {"weight": torch.zeros(1).expand(10**12)}}, path)


def save_lists_of_lists(path):
    entry = [0]
    for _ in range(40):
        entry = [entry, entry]
    torch.save({"state_dict": {}, "more": entry}, path)


def save_compressed(path):
    torch.save({"state_dict": {}}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)


@pytest.mark.parametrize(
    ("save", "received"),
    [
        (save_a_tensor_without_its_values, "a tensor that claims more values than it stores"),
        (save_lists_of_lists, "more than 1,000,000 entries"),
        (save_compressed, "an archive with compressed parts"),
    ],
)
def test_checkpoints_that_would_fill_the_memory(tmp_path, save, received):
    save(tmp_path / "best.ckpt")
    with pytest.raises(DataError, match=f"received {received}"):
        best_weights(tmp_path)
