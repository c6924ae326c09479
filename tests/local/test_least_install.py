"""``pip install 'lakemill[onnx]'`` alone: ingest, predict and report, with every other package away."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from deltalake import DeltaTable
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lake import onnx_classifier, png, steps

ROOT = Path(__file__).parents[2]
JOB = """
import importlib.abc, sys

class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Only())
from lakemill.cli.app import main

for words in (
    "ingest --source files --output lake/images",
    "predict --config job.yaml",
    "report --config job.yaml",
):
    try:
        main(words.split())
    except SystemExit as done:
        if done.code:
            raise
"""


def modules_beyond_the_extra() -> set[str]:
    """Return what this environment has and ``lakemill[onnx]`` does not bring, itself or through others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
    seen = {"lakemill"}
    while wanted:
        need = Requirement(wanted.pop())
        name = canonicalize_name(need.name)
        if name not in seen and (need.marker is None or need.marker.evaluate({"extra": ""})):
            seen.add(name)
            wanted += importlib.metadata.requires(name) or ()
    owned = importlib.metadata.packages_distributions().items()
    return {module for module, owners in owned if not seen.intersection(map(canonicalize_name, owners))}


def test_one_extra_runs_ingest_predict_and_report(tmp_path: Path) -> None:
    away = modules_beyond_the_extra()
    assert away > {"pyspark", "mlflow", "sklearn", "plotly"}
    (tmp_path / "files").mkdir()
    for number in range(3):
        (tmp_path / f"files/{number}.png").write_bytes(png(number))
    (tmp_path / "files/broken.png").write_bytes(b"no picture")
    onnx_classifier(tmp_path / "model.onnx")
    job = {
        "name": "digits",
        "source": {"table": "lake/images"},
        "pipeline": {"steps": steps("model.onnx")},
        "output": {"table": "lake/predictions"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-c", JOB, ",".join(sorted(away))], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert DeltaTable(tmp_path / "lake/predictions").to_pyarrow_table().num_rows == 3
    assert "<html" in (tmp_path / "lake/predictions_report.html").read_text()
