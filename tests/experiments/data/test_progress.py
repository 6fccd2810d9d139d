import pytest

from eq_aimet.experiments.data.progress import progress_bar


def lines_of(capsys, *, count, total, pause):
    with progress_bar(total=total, title="drawing", shown=True, unit="patch", pause=pause) as bar:
        for _ in range(count):
            bar.update(1)
        assert bar.n == count
    return capsys.readouterr().err.splitlines()


def test_elsewhere_than_on_a_terminal_each_tenth_is_a_line(capsys):
    lines = lines_of(capsys, count=1000, total=1000, pause=0.0)
    assert len(lines) == 10
    assert lines[0] == "drawing: 100 of 1,000 patch (10 %)"
    assert lines[-1] == "drawing: 1,000 of 1,000 patch (100 %)"


def test_short_work_is_one_line(capsys):
    assert lines_of(capsys, count=1000, total=1000, pause=3600.0) == ["drawing: 1,000 of 1,000 patch (100 %)"]


def test_work_that_ends_early_says_so(capsys):
    assert lines_of(capsys, count=3, total=10, pause=3600.0) == ["drawing: 3 of 10 patch (30 %)"]


def test_work_that_fails_has_no_last_line(capsys):
    with pytest.raises(ZeroDivisionError), progress_bar(total=2, title="t", shown=True, unit="u"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress_bar(total=4, title="drawing", shown=True, unit="patch") as bar:
        bar.update(4)
    assert "drawing: 100%" in capsys.readouterr().err
