"""The download of PCam's six files, from a small set in its layout."""

import gzip
import hashlib
import logging
import re

import h5py
import numpy as np
import pytest

import eq_aimet.experiments.data.download as download_module
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data import PCamDataset, download_pcam
from eq_aimet.experiments.data.download import PCAM_FILES
from eq_aimet.experiments.data.layout import SPLITS, file_name
from eq_aimet.experiments.data.remote import RemoteFile


@pytest.fixture
def small_pcam(server, monkeypatch):
    """Serves a set in PCam's layout with PCam's names, and makes it the published one."""
    published = []
    for split in SPLITS:
        for key, shape in (("x", (4, 96, 96, 3)), ("y", (4, 1, 1, 1))):
            name = f"{file_name(split, key)}.gz"
            with h5py.File(name, "w", driver="core", backing_store=False) as file:
                file[key] = np.ones(shape, np.uint8)
                file.flush()
                content = gzip.compress(file.id.get_file_image(), mtime=0)
            server.files[name] = content
            published.append(RemoteFile(name, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(download_module, "PCAM_FILES", tuple(published))
    return published


def test_the_downloaded_set_can_be_read(server, small_pcam, tmp_path):
    folder = download_pcam(tmp_path / "pcam", base_url=server.url, progress=False)
    assert len(server.requests) == 6
    for split in SPLITS:
        with PCamDataset(folder, split, cache_dir=tmp_path / "cache", progress=False) as dataset:
            assert len(dataset) == 4
            assert dataset[3][1] == 1
    download_pcam(folder, base_url=server.url, progress=False)
    assert len(server.requests) == 6


def test_an_unpacked_file_is_taken_and_said(server, small_pcam, tmp_path, caplog):
    folder = tmp_path / "pcam"
    folder.mkdir()
    (folder / file_name("test", "y")).write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="eq_aimet"):
        download_pcam(folder, base_url=server.url, progress=False)
    assert len(server.requests) == 5
    assert [
        "test_y.h5`: taken as it is; remove it to download" in message for message in caplog.messages
    ] == [True]


def test_the_published_files_are_those_of_the_layout():
    names = {f"{file_name(split, key)}.gz" for split in SPLITS for key in "xy"}
    assert {file.name for file in PCAM_FILES} == names
    assert len({file.sha256 for file in PCAM_FILES}) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in PCAM_FILES)


@pytest.mark.parametrize("address", [None, "zenodo", "file:///etc/passwd", "ftp://x", 3])
def test_an_address_that_is_none_is_refused_before_anything_is_made(tmp_path, address):
    with pytest.raises(
        InvalidArgumentError, match=r"`base_url`: received .*; expected an address that starts"
    ):
        download_pcam(tmp_path / "pcam", base_url=address)
    assert not (tmp_path / "pcam").exists()
