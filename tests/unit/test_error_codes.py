"""``docs/errors.md`` is the list of error codes: every code of the source is there once, with cause and cure."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lakemill_udfs import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
CLASSES = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def calls(nodes: Iterable[ast.AST], names: set[str]) -> Iterator[ast.Call]:
    """Yield the calls of what has one of these names."""
    for node in nodes:
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
            if name in names:
                yield node


def texts(node: ast.AST) -> set[str]:
    """Return the codes that stand in an expression."""
    values = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
    return {value for value in values if isinstance(value, str) and CODE.fullmatch(value)}


def handed_codes(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield the functions of a module that make an error of the code they are given."""
    given = {call.args[0] for call in calls(nodes, CLASSES) if call.args and isinstance(call.args[0], ast.Name)}
    for function in nodes if given else ():
        if isinstance(function, ast.FunctionDef):
            arguments = {argument.arg for argument in function.args.args}
            if any(node in given and node.id in arguments for node in ast.walk(function)):
                yield function.name


@functools.cache
def source_codes() -> dict[str, str]:
    """Return each code with the call that raises it, as text; also those that a function is handed as ``code``."""
    modules = {
        path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        for root in ("src", "udfs")
        for path in sorted((ROOT / root).rglob("*.py"))
    }
    handed = {name for nodes in modules.values() for name in handed_codes(nodes)}
    found: dict[str, str] = {}
    for path, nodes in modules.items():
        for call in calls(nodes, CLASSES | handed):
            is_error = not (isinstance(call.func, ast.Name) and call.func.id in handed)
            places = call.args[:1] if is_error else [*call.args, *(keyword.value for keyword in call.keywords)]
            for code in {code for place in places for code in texts(place)}:
                found.setdefault(code, f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}")
    return found


def test_every_code_of_the_source_is_on_the_page_once_with_cause_and_cure() -> None:
    listed = Counter(code for code, _, _ in ROWS)
    missing = {code: where for code, where in source_codes().items() if code not in listed}
    assert not missing, "add to docs/errors.md:\n" + "\n".join(
        f"| `{code}` | ... | ... |    <- {where}" for code, where in sorted(missing.items())
    )
    assert [code for code, count in listed.items() if count > 1] == []
    assert all(cause.endswith(".") and cure.strip() for _, cause, cure in ROWS)


def test_the_page_lists_no_code_that_is_gone() -> None:
    assert sorted({code for code, _, _ in ROWS} - source_codes().keys()) == []


def test_pages_name_only_codes_that_there_are() -> None:
    known = source_codes().keys()
    pages = [ROOT / "README.md", ROOT / "AGENTS.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {
        (page.name, code)
        for page in pages
        for code in re.findall(r"`\[([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\]`", page.read_text(encoding="utf-8"))
    }
    assert {(page, code) for page, code in named if code not in known} == set()


NOT_TESTED = {
    "BATCH_TOO_LARGE": "needs a batch of more than 2 GiB in memory",
    "CLASS_ARCHIVE": "needs a Java that ends well and writes nothing",
}


def test_a_test_raises_every_code() -> None:
    """Each code of the page is named by a test that is not this page's."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name]
    named = {word for path in tests for word in re.findall(r"[A-Z][A-Z0-9_]+", path.read_text(encoding="utf-8"))}
    assert {code for code, _, _ in ROWS} - named - NOT_TESTED.keys() == set()
    assert NOT_TESTED.keys() & named == set()
