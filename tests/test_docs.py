"""The Python code of the documentation runs, page by page."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_code(page: Path) -> str:
    """The page's blocks in one program, each at the line that it has on the page."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in FENCE.finditer(text):
        start = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[start : start + len(code)] = code
    return "\n".join(lines).rstrip() + "\n"


def run(page: Path, **names: object) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__page__", **names}
    exec(compile(python_code(page), str(page), "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """Let pages write files where nobody keeps any."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if FENCE.search(page.read_text("utf-8"))], ids=lambda page: page.stem
)
def test_page_runs(page):
    torch.manual_seed(0)
    run(page)


def test_enough_pages_are_run():
    assert sum(bool(FENCE.search(page.read_text("utf-8"))) for page in PAGES) >= 10


def test_a_page_with_wrong_code_fails(tmp_path):
    page = tmp_path / "wrong.md"
    page.write_text("# Wrong\n\n```python\nvalue = 1\n```\n\n```python\nassert value == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run(page)
    assert caught.traceback[-1].lineno + 1 == 8


def test_readme_example_runs_as_it_stands(tmp_path):
    torch.manual_seed(0)
    names = run(ROOT / "README.md")
    assert not names["plain"].training
    assert (tmp_path / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_page_is_in_the_table_of_contents():
    listed = set()
    for page in PAGES:
        for toctree in re.findall(
            r"^```\{toctree\}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
        ):
            listed |= {line for line in toctree.splitlines() if line and not line.startswith(":")}
    assert {page.stem for page in PAGES} - listed == {"index"}


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size > 100_000] == []
