"""Gzipped files, unpacked once into a cache folder."""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.files import data_error, make_folder, whole_files

__all__ = ["progress_bar", "unpack"]

_BLOCK_BYTES = 1 << 20

_logger = logging.getLogger(__name__)


def unpack(source: Path, cache_dir: Path | None = None, *, progress: bool = True) -> Path:
    """Return the unpacked copy of a gzipped file, made in the cache folder unless it is there already.

    A copy is used again while the source's path, size and modification time are the same. Copies of earlier
    states of the same source are removed. The memory that this takes does not depend on the file's size.

    Args:
        source: A file whose name ends in `.gz`.
        cache_dir: The folder for the copy, made where missing; by default the user's cache folder, for which
            `platformdirs` must be installed.
        progress: Whether to show a progress bar, which `tqdm` must be installed for.

    Returns:
        The copy's path.

    Raises:
        DataError: The source is truncated or damaged, or the copy can't be written,
            for want of space for instance.
        InvalidArgumentError: No `cache_dir` was given and `platformdirs` is not installed.
    """
    folder = _default_cache_dir() if cache_dir is None else Path(cache_dir)
    state = source.stat()
    stem, suffix = Path(source.stem).stem, Path(source.stem).suffix
    origin = f"{stem}.{hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]}"
    target = folder / f"{origin}.{state.st_size}-{state.st_mtime_ns}{suffix}"
    if target.is_file():
        _logger.debug("%s is unpacked already: %s", source, target)
        return target
    make_folder(
        folder, purpose="a folder to unpack into", remedy="Choose another one with the argument `cache_dir`."
    )
    with whole_files([target]) as (partial,):
        _decompress(source, partial, progress=progress)
    for path in folder.glob(f"{origin}.*{suffix}"):
        if path != target:
            path.unlink(missing_ok=True)
    return target


def progress_bar(*, total: int, title: str, shown: bool, **options: Any) -> Any:
    """Return a context manager that gives a tqdm bar, or None if none is wanted or tqdm is missing."""
    if not shown:
        return nullcontext()
    try:
        from tqdm import tqdm
    except ImportError:
        _logger.info("tqdm is not installed, so there is no progress bar: %s", title)
        return nullcontext()
    return tqdm(total=total, desc=title, **options)


def _default_cache_dir() -> Path:
    try:
        import platformdirs
    except ImportError as error:
        raise InvalidArgumentError(
            "cache_dir",
            received="None, while platformdirs is not installed",
            expected="a folder to unpack the gzipped files into",
            remedy="Give one, or install platformdirs (`pip install 'eq_aimet[recipes]'`).",
        ) from error
    return Path(platformdirs.user_cache_dir("eq_aimet"))


def _decompress(source: Path, target: Path, *, progress: bool) -> None:
    size = source.stat().st_size
    bar_context = progress_bar(
        total=size, title=f"unpacking {source.name}", shown=progress, unit="B", unit_scale=True
    )
    with open(source, "rb") as packed, open(target, "xb") as unpacked, bar_context as bar:

        def advance() -> None:
            if bar is not None:
                bar.update(packed.tell() - bar.n)

        # Only the reading may blame the source: an OSError of the writing means another fault.
        with gzip.GzipFile(fileobj=packed, mode="rb") as stream:
            while block := _read_block(stream, source, advance):
                unpacked.write(block)


def _read_block(stream: gzip.GzipFile, source: Path, advance: Callable[[], None]) -> bytes:
    try:
        block = stream.read(_BLOCK_BYTES)
    except (EOFError, zlib.error, OSError) as error:
        kind = "a truncated gzip file" if isinstance(error, EOFError) else f"a damaged gzip file ({error})"
        raise data_error(
            source,
            received=kind,
            expected="a whole gzip file",
            remedy="Download it again.",
        ) from error
    advance()
    return block
