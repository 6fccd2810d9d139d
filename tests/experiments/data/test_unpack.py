from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import torch

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.data import PCamDataset, unpack
from eq_aimet.experiments.data.layout import file_name
from eq_aimet.experiments.data.unpack import unpack as unpack_file


@pytest.fixture
def packed_folder(folder: Path, tmp_path: Path) -> Path:
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in folder.iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    return packed


@pytest.fixture
def source(packed_folder: Path) -> Path:
    return packed_folder / f"{file_name('train', 'x')}.gz"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "inner"


def test_gzipped_files_read_as_the_plain_ones(folder, packed_folder, cache):
    with (
        PCamDataset(folder, "train") as plain,
        PCamDataset(packed_folder, "train", cache_dir=cache, progress=False) as packed,
    ):
        assert packed.labels.tolist() == plain.labels.tolist()
        for (image, _), (expected, _) in zip(packed, plain, strict=True):
            assert torch.equal(image, expected)
    assert sorted(path.suffix for path in cache.iterdir()) == [".h5", ".h5"]


def test_the_plain_file_is_preferred(folder, source, cache):
    (folder / source.name).write_bytes(b"not a gzip file")
    with PCamDataset(folder, "train", cache_dir=cache, progress=False) as dataset:
        assert len(dataset) == 6
    assert not cache.exists()


def test_a_copy_is_used_again(source, cache):
    copy = unpack_file(source, cache, progress=False)
    inode = copy.stat().st_ino
    copy.write_bytes(b"kept")
    assert unpack_file(source, cache, progress=False) == copy
    assert copy.read_bytes() == b"kept"
    assert copy.stat().st_ino == inode


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_source_is_unpacked_anew(source, cache, change):
    old = unpack_file(source, cache, progress=False)
    if change == "size":
        state = source.stat()
        source.write_bytes(gzip.compress(b"other content"))
        os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        os.utime(source, ns=(0, 10**18))
    new = unpack_file(source, cache, progress=False)
    assert new != old
    assert list(cache.iterdir()) == [new]
    assert new.read_bytes() == gzip.decompress(source.read_bytes())


def test_sources_of_one_name_do_not_share_a_copy(source, cache, tmp_path):
    other = tmp_path / source.name
    other.write_bytes(gzip.compress(b"other"))
    assert unpack_file(source, cache, progress=False) != unpack_file(other, cache, progress=False)
    assert len(list(cache.iterdir())) == 2


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def break_the_coding(content: bytes) -> bytes:
    # After the ten bytes of the header: 0x07 announces a block of the type 3, which does not exist.
    return content[:10] + b"\x07" + content[11:]


def change_the_checksum(content: bytes) -> bytes:
    return content[:-8] + bytes(4) + content[-4:]


@pytest.mark.parametrize(
    ("spoil", "received"),
    [
        (truncate, "a truncated gzip file"),
        (flip_a_byte, "a damaged gzip file ("),
        (break_the_coding, "a damaged gzip file (Error -3 while decompressing"),
        (change_the_checksum, "a damaged gzip file (CRC check failed"),
        (lambda content: b"<html>" + content, "a damaged gzip file (Not a gzipped file"),
    ],
)
def test_a_spoilt_source_is_named_and_leaves_nothing(
    packed_folder: Path, source: Path, cache: Path, spoil: Callable[[bytes], bytes], received: str
) -> None:
    source.write_bytes(spoil(source.read_bytes()))
    with pytest.raises(DataError) as caught:
        PCamDataset(packed_folder, "train", cache_dir=cache, progress=False)
    assert str(caught.value).startswith(f"`{source}`: received {received}")
    assert str(caught.value).endswith("expected a whole gzip file. Download it again.")
    assert not list(cache.iterdir())


def test_a_full_disk_leaves_nothing(source, cache, fill_disk):
    fill_disk(unpack, 50_000)
    with pytest.raises(DataError, match="received no space left on the device; expected room") as caught:
        unpack_file(source, cache, progress=False)
    assert str(caught.value).startswith(f"`{cache}`")
    assert not list(cache.iterdir())


def test_an_interruption_leaves_nothing(source, cache, monkeypatch):
    def interrupt(*arguments: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(unpack, "_read_block", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack_file(source, cache, progress=False)
    assert not list(cache.iterdir())


def test_a_cache_folder_that_is_a_file(source, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"taken`: received a folder that can't be made .* `cache_dir`"):
        unpack_file(source, tmp_path / "taken", progress=False)


def test_the_default_folder_is_the_users_cache(source, tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "user" / name))
    assert unpack_file(source, progress=False).parent == tmp_path / "user" / "eq_aimet"


def test_without_platformdirs_the_folder_must_be_given(source, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    text = "`cache_dir`: received None, while platformdirs is not installed; expected a folder"
    with pytest.raises(InvalidArgumentError, match=re.escape(text)):
        unpack_file(source, progress=False)
    assert unpack_file(source, cache, progress=False).parent == cache


def test_the_progress_is_shown_if_wanted(source, tmp_path, capsys):
    unpack_file(source, tmp_path / "1", progress=True)
    size = source.stat().st_size
    assert f"unpacking {source.name}: {size:,} of {size:,} B (100 %)\n" in capsys.readouterr().err
    unpack_file(source, tmp_path / "2", progress=False)
    assert capsys.readouterr().err == ""


def test_a_copy_that_is_refused_is_not_kept(packed_folder, source, cache):
    source.write_bytes(gzip.compress(b"no HDF5 file"))
    with pytest.raises(
        DataError, match="received a file that starts with b'no HDF5 '; expected an HDF5"
    ) as caught:
        PCamDataset(packed_folder, "train", cache_dir=cache, progress=False)
    assert str(caught.value).startswith(f"`{source}`")
    assert not list(cache.iterdir())


def test_a_file_that_expands_beyond_measure_is_given_up(folder, packed_folder, source, cache, monkeypatch):
    monkeypatch.setattr(unpack, "_UNSUSPICIOUS", 1 << 20)
    content = (folder / file_name("train", "x")).read_bytes() + bytes(100 << 20)
    source.write_bytes(gzip.compress(content))
    with pytest.raises(
        DataError, match=r"that expands to more than [\d,]+ bytes; expected at most 100 bytes"
    ):
        PCamDataset(packed_folder, "train", cache_dir=cache, progress=False)
    assert not list(cache.iterdir())
