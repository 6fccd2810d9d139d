"""Downloads from a real server in a thread, which misbehaves as real ones do."""

import hashlib
import resource
from dataclasses import replace

import numpy as np
import pytest

from eq_aimet.errors import DataError
from eq_aimet.experiments.data.remote import RemoteFile, fetch_files

CONTENT = np.random.default_rng(0).bytes(3_000_000)
FILE = RemoteFile("images.h5.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def _published(server):
    server.files[FILE.name] = CONTENT


@pytest.fixture
def notices():
    return []


@pytest.fixture
def fetch(server, tmp_path, notices):
    """Fetches the file, or others, without long pauses."""

    def fetch(*files, url=None, folder=tmp_path / "pcam", progress=False):
        fetch_files(
            files or (FILE,),
            folder,
            base_url=url or server.url,
            by_hand="https://example.org/by-hand",
            progress=progress,
            notify=notices.append,
            pauses=(0.01, 0.01),
        )
        return folder

    return fetch


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WHOLE = {FILE.name: CONTENT}


def test_a_file_is_fetched_once(fetch, server, notices):
    assert contents(fetch()) == WHOLE
    assert contents(fetch()) == WHOLE
    assert server.requests == [(FILE.name, None)]
    assert notices == []


def test_cut_connections_are_gone_on_with(fetch, server):
    server.cut_after = [1_000_000, 0, 700_000, 0, 1]
    assert contents(fetch()) == WHOLE
    assert [asked for _, asked in server.requests] == [
        None,
        "bytes=1000000-",
        "bytes=1000000-",
        "bytes=1700000-",
        "bytes=1700000-",
        "bytes=1700001-",
    ]


def test_a_server_that_is_busy_is_asked_again(fetch, server):
    server.failing = 2
    assert contents(fetch()) == WHOLE


def test_an_interrupted_download_goes_on_later(fetch, server, tmp_path):
    server.cut_after = [1_500_000] + [0] * 9
    with pytest.raises(
        DataError,
        match=r"`http://127.*/files/images\.h5\.gz`: received no connection, or one that breaks \(.*\); "
        r"expected 3,000,000 bytes .*HTTPS_PROXY.* or download `images\.h5\.gz` from "
        r"https://example\.org/by-hand into .*by hand\. Run it again to resume",
    ):
        fetch()
    assert contents(tmp_path / "pcam") == {f"{FILE.name}.partial": CONTENT[:1_500_000]}
    server.cut_after, server.requests = [], []
    assert contents(fetch()) == WHOLE
    assert server.requests == [(FILE.name, "bytes=1500000-")]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_that_ignores_ranges_is_read_from_the_start(fetch, server, lengths):
    server.ranges, server.lengths = False, lengths
    server.cut_after = [1_000_000, 2_000_000]
    assert contents(fetch()) == WHOLE
    assert len(server.requests) == 3


def test_a_server_that_sends_nothing_is_given_up(fetch, server):
    server.lengths = False
    server.cut_after = [0] * 9
    with pytest.raises(DataError, match="received no connection, or one that breaks"):
        fetch()
    assert len(server.requests) == 3


def test_another_part_than_that_asked_for_is_refused(fetch, server, tmp_path):
    server.cut_after, server.wrong_range = [1000], True
    with pytest.raises(
        DataError,
        match="received the part 'bytes 0-2999999/3000000' after a request for the part from byte 1000",
    ):
        fetch()
    assert contents(tmp_path / "pcam") == {f"{FILE.name}.partial": CONTENT[:1000]}


def test_a_wrong_beginning_is_fetched_again(fetch, server, tmp_path, notices):
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / f"{FILE.name}.partial").write_bytes(b"x" * 1000)
    assert contents(fetch()) == WHOLE
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]
    assert [notice.endswith("received another checksum; it is fetched from the start.") for notice in notices]


def test_a_beginning_that_is_too_long_is_fetched_again(fetch, server, tmp_path):
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / f"{FILE.name}.partial").write_bytes(CONTENT + b"x")
    assert contents(fetch()) == WHOLE


def test_a_wrong_checksum_leaves_no_file(fetch, tmp_path):
    with pytest.raises(
        DataError,
        match=r"received a file with another checksum than the published one; .* The download was removed\.",
    ):
        fetch(replace(FILE, sha256="0" * 64))
    assert contents(tmp_path / "pcam") == {}


@pytest.mark.parametrize(
    ("damaged", "fault", "asked"),
    [
        (b"x" + CONTENT[1:], "another checksum", None),
        (CONTENT + b"x", "3,000,001 bytes", None),
        (CONTENT[:2000], "2,000 bytes", "bytes=2000-"),
    ],
)
def test_a_damaged_file_is_named_and_fetched_again(fetch, server, tmp_path, notices, damaged, fault, asked):
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / FILE.name).write_bytes(damaged)
    assert contents(fetch()) == WHOLE
    assert server.requests == [(FILE.name, asked)]
    (notice,) = notices
    assert f"{FILE.name}`: received {fault}; expected 3,000,000 bytes as published" in notice


def test_a_damaged_file_is_out_of_the_way_while_there_is_no_network(fetch, tmp_path):
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / FILE.name).write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(DataError):
        fetch(url="http://127.0.0.1:9")
    assert contents(tmp_path / "pcam") == {}


def test_a_file_that_the_server_lacks(fetch, tmp_path):
    with pytest.raises(
        DataError, match=r"/files/other`: received the server's answer 404 Not Found; .*Check the address, or"
    ):
        fetch(replace(FILE, name="other"))
    assert contents(tmp_path / "pcam") == {}


def test_a_page_in_place_of_the_file(fetch, server, tmp_path):
    server.files[FILE.name] = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"received 26 bytes from byte 0 on; .*Something else answers there"):
        fetch()
    assert contents(tmp_path / "pcam") == {}


def test_no_network(fetch):
    with pytest.raises(
        DataError, match=r"received no connection, or one that breaks \(\[Errno 111\]"
    ) as caught:
        fetch(url="http://127.0.0.1:9/files")
    assert "\n" not in str(caught.value)


def test_no_space_is_said_before_anything_is_fetched(fetch, server):
    with pytest.raises(DataError, match=r"received [\d.]+ GB of free space; expected 11805916\d+\.\d GB for"):
        fetch(FILE, replace(FILE, name="other", size=1 << 70))
    assert server.requests == []


def test_a_disk_that_fills_up(fetch, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(
            DataError,
            match=r"received an error on writing \(\[Errno 27\].*Free some space.*resume the download",
        ):
            fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(contents(tmp_path / "pcam")) == [f"{FILE.name}.partial"]
    assert contents(fetch()) == WHOLE


def test_a_folder_that_can_not_be_made(fetch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="received a folder that can't be made"):
        fetch(folder=tmp_path / "file" / "pcam")


def test_the_progress_bar_starts_where_the_download_goes_on(fetch, server, tmp_path, capsys):
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / f"{FILE.name}.partial").write_bytes(CONTENT[:1_500_000])
    fetch(progress=True)
    shown = capsys.readouterr().err
    assert "images.h5.gz: 3,000,000 of 3,000,000 B (100 %)" in shown
    assert "checking images.h5.gz" in shown
