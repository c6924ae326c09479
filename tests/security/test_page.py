"""``docs/security.md``: each sentence of its lists names a test that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SENTENCES = re.findall(r"^- (.*?)(?=^- |^#|^$|^\|)", PAGE, re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"<!-- (\S+\.py)::(\w+) -->\s*$")


def names_of(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_each_sentence_has_a_test_that_there_is() -> None:
    assert len(SENTENCES) > 30
    without = [sentence for sentence in SENTENCES if not NAMED.search(sentence)]
    assert without == []
    gone = [
        sentence
        for sentence in SENTENCES
        if (named := NAMED.search(sentence)) and named[2] not in names_of(ROOT / named[1])
    ]
    assert gone == []


def test_each_test_of_this_folder_is_of_a_sentence() -> None:
    """A promise that is tested here is one that the page makes; files of an old promise's tests may hold more."""
    named = {(Path(found[1]).name, found[2]) for sentence in SENTENCES if (found := NAMED.search(sentence))}
    files = {name for name, _ in named}
    here = {file.name for file in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    assert here <= files
