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


def test_readme_example_runs():
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet.models import EquivariantMobileNetV2

    x = torch.rand(1, 3, 33, 33)
    names = run(
        ROOT / "README.md",
        model=EquivariantMobileNetV2(width=0.25, group=4, input_size=33).eval(),
        x=x,
        forward=lambda quantized: quantized(x),
        QuantizationSimModel=QuantizationSimModel,
    )
    assert names["report"].cls_sets
    assert names["sim"].model(x).shape == (1, 2)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
