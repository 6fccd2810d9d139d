"""Downloads that are complete and checked, and that resume at the byte where they stopped."""

from __future__ import annotations

import hashlib
import http
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import DataError
from eq_aimet.experiments.data.progress import progress_bar
from eq_aimet.files import data_error, make_folder

if TYPE_CHECKING:
    import requests

__all__ = ["RemoteFile", "fetch_files"]

_BLOCK_BYTES = 1 << 20
_TIMEOUT_SECONDS = (10, 60)  # to connect, and between two blocks
_PAUSES_SECONDS = (0.5, 2.0, 8.0)  # between attempts that brought no byte


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: The file's name, on the server and on the disk.
        size: The file's length in bytes.
        sha256: The file's SHA-256, hexadecimal.
    """

    name: str
    size: int
    sha256: str


def fetch_files(
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    base_url: str,
    by_hand: str,
    progress: bool,
    notify: Callable[[str], None],
    pauses: Sequence[float] = _PAUSES_SECONDS,
) -> None:
    """Download the files that the folder lacks; afterwards each file is complete and has its checksum.

    A complete and correct file is not fetched again; a damaged file is named and fetched again. A file is
    called `<name>.partial` until it is complete and checked. An interrupted download resumes where it
    stopped, if the server can send a part of a file.

    Args:
        files: The files to fetch.
        folder: The folder for the files; it is made if it is missing.
        base_url: The address of the files, without `/<name>`.
        by_hand: The page from which a person can download the files, for error messages.
        progress: Whether to show the progress.
        notify: Called with a line about each damaged file.
        pauses: The seconds to wait between attempts that brought no byte; afterwards the download fails.

    Raises:
        DataError: The network or the disk fails, the server has no such file or another file of this name, or
            `requests` is not installed.
    """
    make_folder(folder, purpose="a folder for the downloaded files")
    missing = [file for file in files if not _is_there(file, folder, progress, notify)]
    _check_space(missing, folder)
    if not missing:
        return
    with _session() as session:
        for file in missing:
            url = f"{base_url.rstrip('/')}/{file.name}"
            download = _Download(file, url, folder, by_hand, progress, session)
            resumed = download.partial.exists()
            download.complete(pauses)
            if resumed and not download.is_right():
                notify(f"`{download.partial}`: received another checksum; it is fetched from the start.")
                download.partial.unlink()
                download.complete(pauses)
            download.finish()


class _Download:
    """The download of one file."""

    def __init__(
        self,
        file: RemoteFile,
        url: str,
        folder: Path,
        by_hand: str,
        progress: bool,
        session: requests.Session,
    ) -> None:
        self.file, self.url, self.progress, self.session = file, url, progress, session
        self.target = folder / file.name
        self.partial = _partial(file, folder)
        self._advice = f"or download `{file.name}` from {by_hand} into `{folder}` by hand"

    def complete(self, pauses: Sequence[float]) -> None:
        """Fetch the rest of the file; give up after a few attempts in turn that bring no byte."""
        failures = 0
        with progress_bar(total=self.file.size, title=self.file.name, shown=self.progress, unit="B") as bar:
            while (before := self._length()) < self.file.size:
                try:
                    self._fetch_rest(bar)
                    if self._length() <= before:
                        raise ConnectionError("the server sent nothing new")
                except _connection_errors() as error:
                    failures = 0 if self._length() > before else failures + 1
                    if failures > len(pauses):
                        raise self._error(
                            received=f"no connection, or one that breaks ({_reason(error)})",
                            remedy=f"Check the network and the proxy (HTTPS_PROXY), {self._advice}. "
                            "Run it again to resume the download.",
                        ) from error
                    if failures:
                        time.sleep(pauses[failures - 1])

    def is_right(self) -> bool:
        """Return whether the fetched file has the published length and checksum."""
        return self._length() == self.file.size and _sha256(self.partial, self.progress) == self.file.sha256

    def finish(self) -> None:
        """Give the file its name; if its checksum is wrong, remove the file and raise `DataError`."""
        if not self.is_right():
            self.partial.unlink()
            raise self._error(
                received="a file with another checksum than the published one",
                remedy=f"The download was removed. Try again later, {self._advice}.",
            )
        os.replace(self.partial, self.target)

    def _fetch_rest(self, bar: Any) -> None:
        start = self._length()
        # The server must not compress the file on the way: its length and checksum are those of the file.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with self.session.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            start = self._check(response, start)
            if bar is not None:
                bar.update(start - bar.n)
            with _writing(self.partial), open(self.partial, "ab" if start else "wb") as file:
                while block := response.raw.read(_BLOCK_BYTES, decode_content=False):
                    file.write(block)
                    if bar is not None:
                        bar.update(len(block))
                file.flush()
                os.fsync(file.fileno())

    def _check(self, response: requests.Response, start: int) -> int:
        """Return the byte at which the response starts; raise if the response is not a part of the file."""
        status, length = response.status_code, response.headers.get("Content-Length")
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or status == http.HTTPStatus.TOO_MANY_REQUESTS:
            response.raise_for_status()  # a new attempt may succeed
        if status == http.HTTPStatus.OK:
            start = 0  # the server sends the whole file
        elif status != http.HTTPStatus.PARTIAL_CONTENT:
            raise self._error(
                received=f"the server's answer {status} {response.reason}",
                remedy=f"Check the address, {self._advice}.",
            )
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise self._error(
                received=f"the part {response.headers.get('Content-Range')!r} after a request for the part "
                f"from byte {start} on",
                remedy=f"Remove `{self.partial}` and run it again, {self._advice}.",
            )
        if length is not None and int(length) != self.file.size - start:
            raise self._error(
                received=f"{int(length)} bytes from byte {start} on",
                remedy=f"Something else answers there; log in if the network wants that, {self._advice}.",
            )
        return start

    def _length(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _error(self, *, received: str, remedy: str) -> DataError:
        expected = f"{self.file.size:,} bytes with the sha256 {self.file.sha256}"
        return DataError(f"`{self.url}`: received {received}; expected {expected}. {remedy}")


def _is_there(file: RemoteFile, folder: Path, progress: bool, notify: Callable[[str], None]) -> bool:
    """Return whether the folder holds the correct file; move a damaged one out of the way."""
    target, partial = folder / file.name, _partial(file, folder)
    if target.exists():
        size = target.stat().st_size
        if size == file.size and _sha256(target, progress) == file.sha256:
            return True
        fault = f"{size:,} bytes" if size != file.size else "another checksum"
        notify(f"`{target}`: received {fault}; expected {file.size:,} bytes as published. Fetching it again.")
        if size < file.size:
            os.replace(target, partial)  # the download may resume after a good beginning
        else:
            target.unlink()
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    return False


def _check_space(files: Sequence[RemoteFile], folder: Path) -> None:
    there = sum(_partial(file, folder).stat().st_size for file in files if _partial(file, folder).exists())
    needed = sum(file.size for file in files) - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise data_error(
            folder,
            received=f"{free / 1e9:.1f} GB of free space",
            expected=f"{needed / 1e9:.1f} GB for the missing files",
            remedy="Free some space or choose another folder.",
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a `DataError` with a remedy; errors of the network pass."""
    try:
        yield
    except OSError as error:
        if isinstance(error, _connection_errors()):
            raise
        raise data_error(
            path.parent,
            received=f"an error on writing ({error})",
            expected="room for the downloaded files",
            remedy="Free some space or choose another folder. Run it again to resume the download.",
        ) from error


@contextmanager
def _session() -> Iterator[requests.Session]:
    try:
        import requests
    except ImportError as error:
        raise DataError(
            "the download: received no library `requests`; expected an installed one. "
            "Install it (`pip install 'eq_aimet[recipes]'`)."
        ) from error
    with requests.Session() as session:
        yield session


def _connection_errors() -> tuple[type[Exception], ...]:
    import requests
    import urllib3

    return (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


def _reason(error: Exception) -> str:
    """Return the innermost text of a chain of errors, without the addresses of objects."""
    inner: BaseException = error
    while isinstance(inner.__context__, Exception):
        inner = inner.__context__
    return str(inner) or type(inner).__name__


def _partial(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.name}.partial"


def _sha256(path: Path, progress: bool) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    bar_context = progress_bar(total=size, title=f"checking {path.name}", shown=progress, unit="B")
    with open(path, "rb") as file, bar_context as bar:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if bar is not None:
                bar.update(len(block))
    return digest.hexdigest()
