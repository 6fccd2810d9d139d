"""Files hold one concept: none is over 300 lines, and no function over 40 (its docstring is not counted)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path for folder in ("eq_aimet", "recipes", "tests", "docs") for path in (ROOT / folder).rglob("*.py")
]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    start = function.lineno
    if ast.get_docstring(function) is not None:
        start = function.body[1].lineno if len(function.body) > 1 else function.end_lineno
    return function.end_lineno - start + 1


def long_functions(source: str) -> list[str]:
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [function.name for function in functions if length(function) > 40]


def test_no_file_is_over_300_lines():
    names = {path.relative_to(ROOT).as_posix(): path for path in FILES}
    over = [name for name, path in names.items() if path.read_text(encoding="utf-8").count("\n") > 300]
    assert over == []


@pytest.mark.parametrize("folder", ["eq_aimet", "recipes", "tests", "docs"])
def test_no_function_is_over_40_lines(folder):
    found = {path: long_functions(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): names for path, names in found.items() if names} == {}


def test_a_long_function_is_found():
    body = "    value = 1\n"
    assert long_functions("def short():\n    '''Do.\n\n" + 50 * "    More.\n" + "    '''\n" + body) == []
    assert long_functions("def long():\n" + 40 * body) == ["long"]
