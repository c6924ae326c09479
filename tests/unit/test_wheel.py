"""The wheel holds two packages and nothing else; the zip for executors is the same file."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_exactly_two_packages(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"lakemill", "lakemill_udfs"}
    assert (dist / "lakemill.zip").read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_every_file_of_the_packages(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    sources = {
        path.relative_to(root).as_posix()
        for root in (ROOT / "src", ROOT / "udfs")
        for path in root.rglob("*.*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_says_its_licence_and_holds_the_text(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    assert "License-Expression: Apache-2.0\n" in archive.read(f"{info}/METADATA").decode()
    assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_passes_the_packagers_check(dist: Path) -> None:
    program = Path(sys.executable).with_name("check-wheel-contents")
    done = subprocess.run([program, *dist.glob("*.whl")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_executor_code_is_importable_from_the_zip(dist: Path) -> None:
    archive = str(dist / "lakemill.zip")
    script = f"import sys; sys.path.insert(0, {archive!r}); import lakemill_udfs.worker as w; print(w.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert archive in done.stdout
