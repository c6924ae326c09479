"""The bundle for Databricks runs each notebook and each job that there is, with arguments that the jobs take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lakemill import IngestConfig, PredictConfig
from lakemill.config.transform import TransformConfig

ROOT = Path(__file__).parents[2]
BUNDLE: dict[str, Any] = yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8"))
JOBS: dict[str, dict[str, Any]] = BUNDLE["resources"]["jobs"]
CONFIGS = {"ingest": IngestConfig, "predict": PredictConfig, "transform": TransformConfig}


def tasks(kind: str) -> list[dict[str, Any]]:
    return [task[kind] for job in JOBS.values() for task in job["tasks"] if kind in task]


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.py"))


def test_it_runs_every_notebook_and_every_job() -> None:
    assert [task["notebook_path"] for task in tasks("notebook_task")] == files("notebooks")
    assert sorted(task["python_file"] for task in tasks("spark_python_task")) == files("jobs")


def test_tasks_wait_for_tasks_of_their_job() -> None:
    for job in JOBS.values():
        seen: set[str] = set()
        for task in job["tasks"]:
            assert {needed["task_key"] for needed in task.get("depends_on", ())} <= seen
            seen.add(task["task_key"])


def test_its_arguments_are_those_of_the_jobs() -> None:
    for task in tasks("spark_python_task"):
        flag, config, *given = (
            text.replace("${workspace.file_path}", str(ROOT)).replace("${var.lake}", "/lake")
            for text in task["parameters"]
        )
        kind = CONFIGS[Path(task["python_file"]).stem.partition("_")[0]]
        assert flag == "--config"
        assert set(given[::2]) == {"--set"}
        assert kind.load(config, given[1::2]).output.table.startswith("/lake/")  # type: ignore[attr-defined]  # of each
