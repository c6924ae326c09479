"""``databricks.yml`` as Databricks' own package reads it: no key that it does not know, no value of another type."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from databricks.bundles.jobs import Job

BUNDLE = yaml.safe_load((Path(__file__).parents[2] / "databricks.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BUNDLE["resources"]["jobs"])
def test_a_job_has_the_keys_and_types_of_the_schema(name: str) -> None:
    job = BUNDLE["resources"]["jobs"][name]
    assert len(Job.from_dict(job).tasks) == len(job["tasks"])


def test_a_key_that_there_is_not_is_found() -> None:
    with pytest.raises(ValueError, match="notebook_taks"):
        Job.from_dict({"tasks": [{"task_key": "one", "notebook_taks": {}}]})
