"""Models on the driver: from a URI to files with a version and a sha256, and a pipeline to a logged MLflow model."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakemill.config.variables import masked
from lakemill_udfs.errors import LakemillError, ModelError, missing_extra
from lakemill_udfs.tensors.spec import DTYPES, TensorSpec

MLFLOW_SCHEMES = ("models:/", "runs:/", "mlflow-artifacts:/")
NO_CONTENT = {"__pycache__", "registered_model_meta"}
"""What Python and MLflow write into a model's folder when it is loaded or fetched; not part of its identity."""

COLUMN_DTYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}


@dataclass(frozen=True)
class FoundModel:
    """A model's files and identity.

    Args:
        path: The ``.onnx`` file or the MLflow model's folder, on this machine.
        name: Registered name, or the file's.
        version: Registered version; None for files.
        remote: URI from which workers can fetch it themselves; None if it is on this machine's disk only.
    """

    path: Path
    name: str
    version: str | None
    remote: str | None = None


def find(uri: str, registry: str | None = None) -> FoundModel:
    """Return the model that a URI stands for now: aliases are resolved to versions.

    Args:
        uri: ``models:/name@alias``, ``models:/name/3``, ``runs:/id/path``, a folder with an ``MLmodel`` file or an
            ``.onnx`` file.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.

    Raises:
        ModelError: ``MODEL_NOT_FOUND``, ``MODEL_ALIAS_UNKNOWN``, or ``EXTRA_MISSING`` without MLflow.
    """
    if uri.startswith(MLFLOW_SCHEMES):
        return _find_registered(uri, registry)
    path = Path(uri.removeprefix("file://"))
    if (path.suffix == ".onnx" and path.is_file()) or (path / "MLmodel").is_file():
        return FoundModel(path.absolute(), path.stem if path.is_file() else path.name, None)
    raise ModelError(
        "MODEL_NOT_FOUND",
        f"'{uri}' is neither an .onnx file nor a folder with an MLmodel file.",
        hint="registered models are written models:/name@alias or models:/name/3; "
        "relative paths start at the working folder.",
    )


def _find_registered(uri: str, registry: str | None) -> FoundModel:
    with mlflow_at(registry) as mlflow:
        from mlflow.exceptions import MlflowException

        named = re.fullmatch(r"models:/([^/@]+)(?:@(.+)|/(.+))", uri)
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
            path = Path(mlflow.artifacts.download_artifacts(artifact_uri=source))
        except MlflowException as error:
            raise _unknown(error, uri, name, registry) from error
    is_local = remote is None or "://" not in remote or remote.startswith(("file:", "mlflow-artifacts:", "models:"))
    return FoundModel(path, name, version, None if is_local else remote)


def alias_version(uri: str, registry: str | None = None) -> str:
    """Return the version that ``models:/name@alias`` stands for now; nothing is fetched.

    Raises:
        ModelError: ``MODEL_ALIAS_UNKNOWN`` or ``MODEL_NOT_FOUND``, also if the registry does not answer.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    with mlflow_at(registry) as mlflow:
        from mlflow.exceptions import MlflowException

        try:
            return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            raise _unknown(error, uri, name, registry) from error


def _unknown(error: Any, uri: str, name: str, registry: str | None) -> LakemillError:
    where = f"in the registry '{masked(registry)}'" if registry else "in the registry that MLflow is set to"
    code = getattr(error, "error_code", "")
    if "alias" in str(error).lower() and "@" in uri:
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


@contextmanager
def mlflow_at(registry: str | None) -> Iterator[Any]:
    """Give the ``mlflow`` module, set to a registry for the time of the block only.

    Raises:
        ModelError: ``EXTRA_MISSING`` without MLflow.
    """
    try:
        import mlflow
        import mlflow.artifacts
        import mlflow.pyfunc
    except ImportError as error:
        raise missing_extra("mlflow", "mlflow") from error
    if registry is None:
        yield mlflow
        return
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


def content_sha256(path: Path) -> str:
    """Return the sha256 of a file, or of all files of a folder with their names, in order."""
    digest = hashlib.sha256()
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.is_file() and not NO_CONTENT & set(file.parts))
    )
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def mlmodel(path: Path) -> dict[str, Any]:
    """Return the content of a folder's ``MLmodel`` file."""
    import yaml

    raw: dict[str, Any] = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))
    return raw


def signature_specs(raw: dict[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of an ``MLmodel`` file's signature; empty where it says nothing.

    An unnamed tensor is called ``input`` or ``output``.
    """
    import json

    signature = raw.get("signature") or {}
    return (
        _specs(json.loads(signature.get("inputs") or "[]"), "input"),
        _specs(json.loads(signature.get("outputs") or "[]"), "output"),
    )


def _specs(schema: list[dict[str, Any]], unnamed: str) -> tuple[TensorSpec, ...]:
    return tuple(spec for column in schema if (spec := _spec(column, unnamed)) is not None)


def _spec(column: dict[str, Any], unnamed: str) -> TensorSpec | None:
    name, nullable = column.get("name", unnamed), not column.get("required", True)
    if column["type"] == "tensor":
        tensor = column["tensor-spec"]
        kind = {"str": "string", "object": "string"}.get(tensor["dtype"], tensor["dtype"])
        shape = tuple(None if size == -1 else size for size in tensor["shape"][1:])
        return TensorSpec(name, kind, shape, nullable) if kind in DTYPES else None
    if column["type"] == "array":
        inner = _spec(column["items"], unnamed)
        return None if inner is None else TensorSpec(name, inner.dtype, (None, *inner.shape), nullable)
    return TensorSpec(name, COLUMN_DTYPES[column["type"]], (), nullable) if column["type"] in COLUMN_DTYPES else None
