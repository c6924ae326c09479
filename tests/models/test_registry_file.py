"""A registry that is one SQLite file is read without MLflow, and says what MLflow says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lakemill.pipelines.registry import alias_version, find
from lakemill_udfs.errors import LakemillError
from tests.models.conftest import Registry

SCRIPT = """
import json, sys
from lakemill.pipelines.registry import alias_version, find
from lakemill_udfs.errors import LakemillError
for uri in sys.argv[2:]:
    try:
        found = find(uri, sys.argv[1])
        version = alias_version(uri, sys.argv[1]) if "@" in uri else found.version
        said = [str(found.path), found.name, version, found.remote, found.sha256]
    except LakemillError as error:
        said = error.code
    print(json.dumps([said, "mlflow" in sys.modules]))
"""


def without_mlflow(registry: str, *uris: str, **environment: str) -> list[Any]:
    """Return what a new process is told of each URI, and whether MLflow was there by then."""
    command = [sys.executable, "-c", SCRIPT, registry, *uris]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def with_mlflow(registry: str, uri: str) -> Any:
    try:
        found = find(uri, registry)
        version = alias_version(uri, registry) if "@" in uri else found.version
        return [str(found.path), found.name, version, found.remote, found.sha256]
    except LakemillError as error:
        return error.code


@pytest.fixture(scope="module")
def names(registry: Registry) -> MlflowClient:
    client = MlflowClient(registry.uri, registry.uri)
    for alias in ("now", "gone"):
        registry.pipeline.log(name="plain", registered_model_name="plain", alias=alias, registry=registry.uri)
    client.set_registered_model_alias("plain", "kept", "1")
    client.set_model_version_tag("plain", "1", "lakemill.sha256", "ab" * 32)
    client.delete_registered_model_alias("plain", "gone")
    client.delete_model_version("plain", "2")
    return client


def test_what_the_file_says_is_what_mlflow_says(registry: Registry, names: MlflowClient) -> None:
    known = ["models:/plain@now", "models:/plain@kept", "models:/plain/1", "models:/digits@production"]
    told = without_mlflow(registry.uri, *known)
    assert [said for said, _ in told] == [with_mlflow(registry.uri, uri) for uri in known]
    assert told[0][0][4] == "ab" * 32
    assert not any(loaded for _, loaded in told)


@pytest.mark.parametrize("uri", ["models:/plain@gone", "models:/plain/2", "models:/nobody@now", "models:/plain/9"])
def test_what_the_file_does_not_know_is_asked_of_mlflow(registry: Registry, names: MlflowClient, uri: str) -> None:
    assert without_mlflow(registry.uri, uri) == [[with_mlflow(registry.uri, uri), True]]


def test_an_alias_that_moved_is_the_new_version(registry: Registry, names: MlflowClient) -> None:
    for version in ("3", "1"):
        if version == "3":
            registry.pipeline.log(name="plain", registered_model_name="plain", registry=registry.uri)
        names.set_registered_model_alias("plain", "moving", version)
        (told,) = without_mlflow(registry.uri, "models:/plain@moving")
        assert told[0][2] == version
        assert not told[1]


def test_another_workspace_is_mlflows_to_know(registry: Registry, names: MlflowClient) -> None:
    (told,) = without_mlflow(registry.uri, "models:/plain/1", MLFLOW_WORKSPACE="default")
    assert told[1]


def test_a_file_that_is_no_registry_is_mlflows_to_explain(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("no database at all")
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    assert without_mlflow(uri, "models:/plain/1") == [["REGISTRY_UNREACHABLE", True]]
