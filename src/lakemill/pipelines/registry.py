"""Models on the driver: from a URI to files with a version and a sha256, and a pipeline to a logged MLflow model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakemill.pipelines.reachable import check_reachable, unreachable
from lakemill.pipelines.registry_file import registered, registry_uri
from lakemill_udfs.errors import LakemillError, ModelError, missing_extra
from lakemill_udfs.files import is_there
from lakemill_udfs.masking import without_secrets
from lakemill_udfs.models import flavors
from lakemill_udfs.models.files import keep_download

MLFLOW_SCHEMES = ("models:/", "runs:/", "mlflow-artifacts:/")

LONGEST_NAME = 200
"""Letters of a module's name, which is a file's too."""

SHA256_TAG = "lakemill.sha256"
"""Tag of a registered version with the sha256 of what runs; another content is refused."""

NO_ANSWER = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
REFUSED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
"""MLflow's codes for a registry that failed to answer, and for one that does not let this user see a model."""


@dataclass(frozen=True)
class FoundModel:
    """A model's files and identity.

    Args:
        path: The model's file or the MLflow model's folder, on this machine.
        name: Registered name, or the file's.
        version: Registered version; None for files.
        remote: URI from which workers can fetch it themselves; None if it is on this machine's disk only.
        described: What its ``MLmodel`` file holds; empty for a file.
        sha256: What it was when ``lakemill.log_model`` registered it.
    """

    path: Path
    name: str
    version: str | None
    remote: str | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    def has_own(self, module: str) -> bool:
        """Return whether a module is in the model's own code."""
        code = self.path / "code"
        is_name = len(module) <= LONGEST_NAME and all(part.isidentifier() for part in module.split("."))
        return is_name and ((code / module.partition(".")[0]).is_dir() or (code / f"{module}.py").is_file())


class Finder:
    """Finds each model once: for as long as this is kept, an alias is one version and files are fetched once.

    Args:
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.
    """

    def __init__(self, registry: str | None = None) -> None:
        self.registry = registry
        self._found: dict[str, FoundModel] = {}

    def find(self, uri: str) -> FoundModel:
        """Return a model, or the part of a logged pipeline that a URI names after a ``#``: ``models:/name/3#model_1``.

        Raises:
            ModelError: as ``find``.
        """
        if uri not in self._found:
            inside = re.fullmatch(r"(.+)#(model_\d+)", uri)
            self._found[uri] = _part(self.find(inside[1]), *inside.groups()) if inside else find(uri, self.registry)
        return self._found[uri]


def _part(whole: FoundModel, uri: str, part: str) -> FoundModel:
    artifacts = ((whole.described.get("flavors") or {}).get("python_function") or {}).get("artifacts") or {}
    inner = artifacts.get(part, {}).get("path", "..")
    path = whole.path / inner
    if not path.resolve().is_relative_to(whole.path.resolve()):
        raise ModelError("MODEL_NOT_FOUND", f"the logged pipeline '{uri}' has no model '{part}' in its own folder.")
    remote = whole.remote and f"{whole.remote.rstrip('/')}/{inner}"
    return FoundModel(path, whole.name, whole.version, remote, mlmodel(path) or _noted(whole, artifacts, part))


def _noted(whole: FoundModel, artifacts: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return what a logged pipeline notes of a model that is a file alone: its tensors, and what it is called by."""
    python = (whole.described.get("flavors") or {}).get("python_function") or {}
    models = (python.get("config") or {}).get("models") or []
    parts = sorted(artifacts, key=lambda name: int(name.rpartition("_")[2]))
    if part not in parts or len(models) != len(parts):
        return {}
    identity = models[parts.index(part)]
    return {"metadata": {flavors.NOTED_KEY: {key: identity.get(key) or {} for key in ("inputs", "outputs", "options")}}}


def find(uri: str, registry: str | None = None) -> FoundModel:
    """Return the model that a URI stands for now: aliases are resolved to versions.

    Args:
        uri: ``models:/name@alias``, ``models:/name/3``, ``runs:/id/path``, a folder with an ``MLmodel`` file, or a
            file or folder that one of ``flavors.RUNTIMES`` takes.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.

    Raises:
        ModelError: ``MODEL_NOT_FOUND``, ``MODEL_ALIAS_UNKNOWN``, or ``EXTRA_MISSING`` without MLflow.
    """
    if uri.startswith(MLFLOW_SCHEMES):
        return _find_registered(uri, registry)
    path = Path(uri.removeprefix("file://"))
    if is_there(path):
        described = mlmodel(path)
        if described or flavors.recognise(path, described) is not None:
            name = without_secrets(path.stem if path.is_file() else path.name)  # it stands in every row
            return FoundModel(path.absolute(), name, None, described=described)
    raise ModelError(
        "MODEL_NOT_FOUND",
        f"'{uri}' is neither a file nor a folder that a runtime here takes.",
        hint="registered models are written models:/name@alias or models:/name/3; "
        "relative paths start at the working folder.",
    )


def check_registry_file(uri: str, registry: str | None) -> None:
    """Look whether a registry's file is there: MLflow would make one, which takes it seconds, and find nothing in it.

    Raises:
        ModelError: ``MODEL_NOT_FOUND``.
    """
    where = registry_uri(registry)
    file = where.removeprefix("sqlite:///")
    if file != where and ":memory:" not in file and not Path(file.partition("?")[0]).exists():
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"there is no model '{uri}': the registry '{where}' is not there.",
            hint="relative paths start at the working folder; an absolute one has four slashes: sqlite:////data/mlflow.db",
        )


def _find_registered(uri: str, registry: str | None) -> FoundModel:
    check_registry_file(uri, registry)
    named = re.fullmatch(r"models:/([^/@]+)(?:@(.+)|/(.+))", uri)
    known = registered(named[1], named[3], named[2], registry) if named else None
    if known is not None and named:
        return FoundModel(known.path, named[1], known.version, None, mlmodel(known.path), known.tags.get(SHA256_TAG))
    with mlflow_at(registry) as mlflow:
        from mlflow.exceptions import MlflowException

        name, version = (named[1], named[3]) if named else (uri.rstrip("/").rpartition("/")[2], None)
        try:
            client = mlflow.MlflowClient()
            if named and named[2]:
                version = str(client.get_model_version_by_alias(name, named[2]).version)
            source = f"models:/{name}/{version}" if named else uri
            remote = (
                client.get_model_version_download_uri(name, version)
                if named and version and version.isdigit()
                else None
            )
            tags = client.get_model_version(name, version).tags if named and remote is not None else {}
            path = _files(source)
        except MlflowException as error:
            raise _unknown(error, uri, name, registry) from error
    is_local = remote is None or "://" not in remote or remote.startswith(("file:", "mlflow-artifacts:", "models:"))
    return FoundModel(path, name, version, None if is_local else remote, mlmodel(path), tags.get(SHA256_TAG))


def _files(source: str) -> Path:
    """Return where a registered model is on this machine: in its local store, or the one copy of what was fetched."""
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    store: Any = get_artifact_repository(source)
    while hasattr(store, "repo"):  # of models:/ and runs:/, which stand for another one
        store = store.repo
    if isinstance(store, LocalArtifactRepository):
        return Path(download_artifacts(artifact_uri=source))
    return keep_download(lambda room: Path(download_artifacts(artifact_uri=source, dst_path=str(room))))


def alias_version(uri: str, registry: str | None = None) -> str:
    """Return the version that ``models:/name@alias`` stands for now; nothing is fetched.

    Raises:
        ModelError: ``MODEL_ALIAS_UNKNOWN`` or ``MODEL_NOT_FOUND``, also if the registry does not answer.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    check_registry_file(uri, registry)
    known = registered(name, None, alias, registry)
    if known is not None:
        return known.version
    with mlflow_at(registry) as mlflow:
        from mlflow.exceptions import MlflowException

        try:
            return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            raise _unknown(error, uri, name, registry) from error


def _unknown(error: Any, uri: str, name: str, registry: str | None) -> LakemillError:
    """Return what MLflow's error means, by its code: its text may hold anything."""
    where = f"in the registry '{registry}'" if registry else "in the registry that MLflow is set to"
    code = str(getattr(error, "error_code", ""))
    if code in NO_ANSWER and error.__cause__ is not None:
        return unreachable(registry or "MLflow's own", type(error.__cause__).__name__)
    if code in REFUSED:
        return ModelError(
            "REGISTRY_REFUSED",
            f"the registry does not let this user see '{uri}' ({code}).",
            hint="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, say who asks.",
        )
    if code == "INVALID_PARAMETER_VALUE" and re.fullmatch(r"models:/[^/@]+@.+", uri):
        alias = uri.rpartition("@")[2]
        return ModelError(
            "MODEL_ALIAS_UNKNOWN",
            f"model '{name}' has no alias '{alias}' {where}.",
            hint=f"set it: MlflowClient().set_registered_model_alias('{name}', '{alias}', <version>)",
        )
    return ModelError(
        "MODEL_NOT_FOUND",
        f"there is no model '{uri}' {where} ({code or type(error).__name__}).",
        hint="--registry names another registry, for example sqlite:///lake/mlflow.db",
    )


def _check_database(mlflow: Any, uri: str) -> None:
    """Open a registry that is a database, as MLflow does at its first question.

    Raises:
        ModelError: ``EXTRA_MISSING`` without the database's driver, ``REGISTRY_UNREACHABLE`` if it does not open.
    """
    if not re.match(r"(sqlite|postgresql|mysql|mssql)[+:]", uri):
        return
    try:
        mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except ImportError as error:
        raise ModelError(
            "EXTRA_MISSING",
            f"the registry '{uri}' needs the module '{error.name}', which is not installed here.",
            hint=f"pip install {error.name}",
        ) from error
    except Exception as error:  # each driver has classes of its own, with the address in their texts
        raise unreachable(uri, type(error).__name__) from None


@contextmanager
def mlflow_at(registry: str | None) -> Iterator[Any]:
    """Give the ``mlflow`` module, set to a registry for the time of the block only.

    Raises:
        ModelError: ``EXTRA_MISSING`` without MLflow, ``REGISTRY_UNREACHABLE`` if the registry does not answer.
    """
    try:
        import mlflow
        import mlflow.artifacts
        import mlflow.pyfunc
    except ImportError as error:
        raise missing_extra("mlflow", "mlflow") from error
    if registry is None:
        for uri in dict.fromkeys((mlflow.get_tracking_uri(), mlflow.get_registry_uri())):
            check_reachable(uri)
            _check_database(mlflow, uri)
        yield mlflow
        return
    check_reachable(registry)
    _check_database(mlflow, registry)
    is_set: bool = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]  # MLflow's function is untyped
    tracking, own_registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    variable = os.environ.get("MLFLOW_REGISTRY_URI")
    mlflow.set_tracking_uri(registry)
    mlflow.set_registry_uri(registry)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(tracking if is_set else None)  # type: ignore[arg-type]  # None: MLflow's own settings
        mlflow.set_registry_uri(own_registry if own_registry != tracking else None)  # type: ignore[arg-type]  # as above
        os.environ.pop("MLFLOW_REGISTRY_URI", None)  # MLflow sets it and never takes it back
        if variable is not None:
            os.environ["MLFLOW_REGISTRY_URI"] = variable


def mlmodel(path: Path) -> dict[str, Any]:
    """Return the content of a folder's ``MLmodel`` file; empty for a file, or a folder without one.

    Raises:
        ModelError: as ``described.read_mlmodel``.
    """
    if not (path / "MLmodel").is_file():
        return {}
    from lakemill.pipelines.described import read_mlmodel  # with pydantic, which a bare file does not need

    return read_mlmodel(path)
