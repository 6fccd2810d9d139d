"""PatchCamelyon's six files from Zenodo.

Veeling et al., "Rotation Equivariant CNNs for Digital Pathology", 2018; https://zenodo.org/records/2546921.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from eq_aimet.arguments import check_path
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data.layout import SPLITS, file_name
from eq_aimet.experiments.data.remote import RemoteFile, fetch_files

__all__ = ["PCAM_FILES", "PCAM_PAGE", "PCAM_URL", "download_pcam"]

PCAM_PAGE = "https://zenodo.org/records/2546921"
PCAM_URL = f"{PCAM_PAGE}/files"

_logger = logging.getLogger(__name__)

# Lengths and checksums as TensorFlow Datasets publishes them for Zenodo's files.
_PUBLISHED = {
    "train_x": (6_421_353_462, "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c"),
    "train_y": (21_378, "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a"),
    "valid_x": (805_965_320, "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2"),
    "valid_y": (3_038, "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c"),
    "test_x": (800_875_929, "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245"),
    "test_y": (3_040, "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef"),
}

PCAM_FILES = tuple(
    RemoteFile(f"{file_name(split, key)}.gz", *_PUBLISHED[f"{split}_{key}"])
    for split in SPLITS
    for key in ("y", "x")
)


def download_pcam(
    folder: str | Path,
    *,
    progress: bool = True,
    base_url: str = PCAM_URL,
    on_notice: Callable[[str], None] | None = None,
) -> Path:
    """Fetch PatchCamelyon's six gzipped files, 8.0 GB, check each, and return their folder.

    Existing files are checked, and correct ones are not fetched again. An interrupted download resumes where
    it stopped. Damaged files are named and fetched again. A file is called `<name>.partial` until it is
    complete and its checksum is right. An unpacked file, without `.gz`, stays as it is.

    `PCamDataset` unpacks the files into the cache folder at first use, which takes another 9 GB.

    Args:
        folder: The folder for the files; it is made if it is missing.
        progress: Whether to show the progress.
        base_url: The address of a mirror, without the file names.
        on_notice: Called with a line about each file that is damaged or can't be checked; by default the line
            is logged as a warning.

    Raises:
        DataError: The network or the disk fails, the server has no such file or another file of this name, or
            `requests` is not installed.
        InvalidArgumentError: `folder` is not a path, or `base_url` is not an address.

    Example:
        >>> download_pcam("pcam")  # doctest: +SKIP
        PosixPath('pcam')
        >>> sum(file.size for file in PCAM_FILES)
        8028222167
    """
    folder = check_path("folder", folder)
    if not isinstance(base_url, str) or not base_url.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            "base_url",
            received=repr(base_url),
            expected="an address that starts with https:// or http://",
            remedy=f"Leave it out to take {PCAM_URL}.",
        )
    notify = on_notice or _logger.warning
    files = []
    for file in PCAM_FILES:
        unpacked = folder / file.name.removesuffix(".gz")
        if unpacked.exists():
            notify(
                f"`{unpacked}`: taken as it is; remove it to download `{file.name}`, which can be checked."
            )
        else:
            files.append(file)
    fetch_files(files, folder, base_url=base_url, by_hand=PCAM_PAGE, progress=progress, notify=notify)
    return folder
