"""Gzipped files, unpacked once into a cache folder."""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from collections.abc import Callable
from pathlib import Path

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.data.progress import progress_bar
from eq_aimet.files import data_error, make_folder, whole_files

__all__ = ["unpack"]

_BLOCK_BYTES = 1 << 20
# Gzip makes PCam's images an eighth smaller, and its labels twelve times smaller. A file that expands more
# than a hundred times is made to fill the disk.
_MOST_EXPANSION = 100
_UNSUSPICIOUS = 64 << 20  # bytes to which any file may expand

_logger = logging.getLogger(__name__)


def unpack(
    source: Path,
    cache_dir: Path | None = None,
    *,
    check: Callable[[Path], object] | None = None,
    progress: bool = True,
) -> Path:
    """Return the unpacked copy of a gzipped file; make it in the cache folder if it is not there yet.

    The function returns an older copy as long as the source's path, size and modification time are the same.
    It removes copies of earlier states of the source. It needs the same memory for files of any size.

    Args:
        source: A file whose name ends in `.gz`.
        cache_dir: The folder for the copy, made if it is missing; by default the user's cache folder, for
            which `platformdirs` must be installed.
        check: A function that takes the path of the new copy, and raises if the copy is useless. `unpack`
            then removes the copy.
        progress: Whether to show the progress.

    Returns:
        The copy's path.

    Raises:
        DataError: The source is truncated or damaged, it expands to more than a hundred times its size, or
            `check` refuses it; or the copy can't be written, for example because the disk is full.
        InvalidArgumentError: No `cache_dir` was given and `platformdirs` is not installed.
    """
    folder = _default_cache_dir() if cache_dir is None else cache_dir
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
        if check is not None:
            try:
                check(partial)
            except DataError as error:
                raise DataError(str(error).replace(str(partial), str(source))) from error
    for path in folder.glob(f"{origin}.*{suffix}"):
        if path != target:
            path.unlink(missing_ok=True)
    return target


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
    most = max(_UNSUSPICIOUS, _MOST_EXPANSION * size)
    bar_context = progress_bar(total=size, title=f"unpacking {source.name}", shown=progress, unit="B")
    with open(source, "rb") as packed, open(target, "xb") as unpacked, bar_context as bar:

        def advance() -> None:
            if bar is not None:
                bar.update(packed.tell() - bar.n)

        # `_read_block` blames the source. An OSError of `write` means that the disk is at fault.
        with gzip.GzipFile(fileobj=packed, mode="rb") as stream:
            while block := _read_block(stream, source, advance):
                unpacked.write(block)
                if unpacked.tell() > most:
                    raise data_error(
                        source,
                        received=f"a gzip file of {size:,} bytes that expands to more than {most:,} bytes",
                        expected=f"at most {_MOST_EXPANSION} bytes for a byte of the file",
                        remedy="It is made to fill the disk. Get the file from elsewhere.",
                    )


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
