"""Files are written whole or not at all: errors, a full disk, and Ctrl-C at each file operation."""

import subprocess
import sys
import textwrap

import pytest

from eq_aimet.errors import DataError
from eq_aimet.files import remove_partial, whole_files

INTERRUPTED = """
    import os, signal, sys, tempfile
    from pathlib import Path
    from eq_aimet.files import whole_files

    OPERATIONS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
    strike = {"at": 0, "seen": 0, "folder": None}

    def audit(event, arguments):
        if event in OPERATIONS and strike["folder"] and strike["folder"] in str(arguments[0]):
            strike["seen"] += 1
            if strike["seen"] == strike["at"]:
                os.kill(os.getpid(), signal.SIGINT)

    def write(folder):
        with whole_files([folder / "a", folder / "b", folder / "c"]) as partial:
            (partial[0].parent / "scratch").mkdir()
            for path in partial:
                path.write_text("new")

    sys.addaudithook(audit)
    outcomes = []
    for at in range(1, 100):
        folder = Path(tempfile.mkdtemp())
        for name in "ab":
            (folder / name).write_text("old")
        strike.update(at=at, seen=0, folder=str(folder))
        try:
            write(folder)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        strike["folder"] = None
        found = {path.name: path.read_text() for path in folder.iterdir()}
        assert interrupted == (strike["seen"] >= at), (at, found)
        assert found in ({"a": "old", "b": "old"}, dict.fromkeys("abc", "new")), (at, found)
        if not interrupted:
            break
        outcomes.append("c" in found)
    print(len(outcomes), sum(outcomes))
"""


def write(targets, error=None):
    with whole_files(targets) as partial:
        for path in partial:
            path.write_text("new")
        if error is not None:
            raise error


def test_ctrl_c_at_any_file_operation_leaves_all_files_old_or_all_new():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    operations, new = map(int, done.stdout.split())
    assert operations > 12  # folders, files, links, renamings, removals
    assert 0 < new < operations


def test_a_target_that_cannot_be_replaced_leaves_the_older_files(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "c").mkdir()
    targets = [tmp_path / name for name in "abc"]

    with pytest.raises(DataError, match="older files are as they were"):
        write(targets)

    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_an_error_in_the_block_leaves_the_older_file(tmp_path):
    (tmp_path / "a").write_text("old")

    with pytest.raises(ZeroDivisionError):
        write([tmp_path / "a"], ZeroDivisionError())

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_what_a_killed_process_left_is_removed(tmp_path):
    killed = tmp_path / ".a.0123.partial"
    killed.mkdir()
    (killed / "a").write_text("half")
    (tmp_path / ".b.0123.partial").mkdir()

    remove_partial(tmp_path / "a")

    assert [path.name for path in tmp_path.iterdir()] == [".b.0123.partial"]
