"""What is built and what it needs: the same wheel from the same files, and few packages, each with its reason."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_is_reproducible(tmp_path: Path) -> None:
    """From another folder, at another time, with other permissions: every byte is the same."""
    digests = set()
    for name, umask in (("one", 0o022), ("two", 0o077)):
        copy = tmp_path / name
        copy.mkdir()
        for part in ("src", "udfs"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, copy / file)
        if name == "two":
            for file in (copy / "src").rglob("*"):
                os.utime(file, (1e9, 1e9))
        before = os.umask(umask)
        try:
            subprocess.run([ROOT / "scripts/build_dist.sh", sys.executable, copy / "dist"], cwd=copy, check=True)
        finally:
            os.umask(before)
        (wheel,) = (copy / "dist").glob("*.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_base_packages_are_those_of_the_page() -> None:
    base = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("| package | why |")[2]
    listed = re.findall(r"^\| ([a-z]\S*) \| \S.* \|$", page, re.MULTILINE)
    assert [re.match(r"[\w-]+", requirement)[0] for requirement in base] == listed  # type: ignore[index]  # each has a name
