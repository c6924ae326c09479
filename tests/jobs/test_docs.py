"""Every code block of the README and the docs runs, in the order in which a reader meets it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from lakemill.cli.app import guarded, run
from lakemill.demo.walk import DemoResult
from tests.lake import photo_classifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "AGENTS.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
COOKBOOK = "docs/cookbook.md"  # test_cookbook.py runs its questions, and looks at the answers
DEEP = "docs/deep-learning.md"  # tests/frameworks runs its code, where PyTorch and TensorFlow are
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand where a user stands after the demo, with photographs, a model and its labels beside the lake."""
    folder = demo.lake.parent
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "labels.txt").write_text("\n".join(f"class {number}" for number in range(5)))
    photo_classifier(folder / "models" / "photos.onnx", classes=5)
    shutil.copytree(demo.lake / "files" / "photos", folder / "data" / "photos", dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, folder: Path, spark: SparkSession) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    runners = {
        "python": run_python,
        "sh": run_shell,
        "yaml": run_yaml,
        "sql": lambda text: spark.sql(text).collect() if page != COOKBOOK else None,
        "mermaid": len,  # a drawing
        "text": len,
    }
    for language, code in blocks:
        if page == DEEP and language == "python":
            continue
        runners[language](absolute(code, folder) if language in ("python", "sql") else code)
    assert (ROOT / page).read_text().count("```") == 2 * len(blocks), "a block without a language"


def absolute(code: str, folder: Path) -> str:
    """Return a block with the lake's full path where Spark itself reads it: this JVM was started in another folder."""
    return code.replace("`lake/", f"`{folder}/lake/").replace('load("lake/', f'load("{folder}/lake/')


def run_python(code: str) -> None:
    exec(compile(code, "block", "exec"), {"__name__": "block"})  # noqa: S102 -- our own page


def run_yaml(code: str) -> None:
    """Check a job's configuration; the README's is kept for the commands after it."""
    from lakemill import IngestConfig, PredictConfig
    from lakemill.config.transform import TransformConfig

    raw = yaml.safe_load(code)
    kind = PredictConfig if "pipeline" in raw else IngestConfig if "path" in raw["source"] else TransformConfig
    kind.model_validate(raw)
    Path(f"{raw['name']}.yaml").write_text(code, encoding="utf-8")


def run_shell(code: str) -> None:
    """Run ``lakemill``; of other programs, which other tests run, check that what they name is there."""
    for line in code.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "lakemill":
            assert guarded(lambda given=arguments: run(given)) == 0, line
        elif program == "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        else:
            assert program in ("pip", "spark-submit"), line
            files = [word for word in arguments if word.startswith(("jobs/", "conf/", "notebooks/"))]
            assert all((ROOT / file).is_file() for file in files), line
