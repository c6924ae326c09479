"""Which keys have a model: the files or registered models that a URI with a key in braces stands for."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lakemill.pipelines.registry import MLFLOW_SCHEMES, check_registry_file, mlflow_at
from lakemill_udfs.errors import ModelError
from lakemill_udfs.masking import masked
from lakemill_udfs.models.model import ModelSpec, Specs
from lakemill_udfs.steps.keyed import PLACEHOLDER, KeyedStep

PAGE = 1000  # registered models that are asked for at a time


def with_table(step: KeyedStep, registry: str | None = None) -> KeyedStep:
    """Return a step that says the URI of every key.

    Args:
        step: With ``uri``, or a ``table`` already.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.

    Raises:
        ModelError: ``MODEL_NOT_FOUND`` if there is no model at all; whatever the registry says.
    """
    if step.uri is None:
        return step
    before, _, after = PLACEHOLDER.split(step.uri)
    is_registered = step.uri.startswith(MLFLOW_SCHEMES)
    keys = [*_registered(step.uri, registry)] if is_registered else _files(before, after)
    table = {key: f"{before}{key}{after}" for key in sorted(keys)} | dict(step.table)
    if not table:
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"no key has a model: there is none like '{masked(step.uri)}'.",
            hint="--registry names another registry; relative paths start at the working folder.",
        )
    return replace(step, table=table)


def _files(before: str, after: str) -> list[str]:
    start = before.removeprefix("file://")
    found = glob.glob(f"{glob.escape(start)}*{glob.escape(after)}")  # noqa: PTH207 -- the pattern ends inside a name
    return [path[len(start) : len(path) - len(after)] for path in found]


def versions_of_keys(uri: str, registry: str | None) -> dict[str, str]:
    """Return the version that each key's alias stands for now, by the key's URI; nothing is fetched.

    Args:
        uri: With the key in braces, and an alias.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.

    Raises:
        ModelError: whatever the registry says.
    """
    before, _, after = PLACEHOLDER.split(uri)
    alias = uri.rpartition("@")[2]
    return {f"{before}{key}{after}": str(model.aliases[alias]) for key, model in _registered(uri, registry).items()}


def _registered(uri: str, registry: str | None) -> dict[str, Any]:
    """Return the registered model of each key that has one and, where the URI names an alias, that has it."""
    named = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))", uri)
    if named is None:
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"'{masked(uri)}' is no name of a registered model with an alias or version.",
            hint="models:/demand-{store_id}@production",
        )
    before, _, after = PLACEHOLDER.split(named[1])
    models = _search(before, uri, registry)
    return {
        model.name[len(before) : len(model.name) - len(after)]: model
        for model in models
        if model.name.endswith(after) and (named[2] is None or named[2] in model.aliases)
    }


def _search(start: str, uri: str, registry: str | None) -> list[Any]:
    """Return the registered models whose name starts so."""
    check_registry_file(uri, registry)
    with mlflow_at(registry) as mlflow:
        from mlflow.exceptions import MlflowException

        client, found, page = mlflow.MlflowClient(), list[Any](), None
        try:
            while page != "":
                models = client.search_registered_models(f"name LIKE '{start}%'", max_results=PAGE, page_token=page)
                found += [model for model in models if model.name.startswith(start)]
                page = models.token or ""
        except MlflowException as error:
            raise ModelError(
                "MODEL_NOT_FOUND", f"the registry does not list models like '{masked(uri)}' ({error.error_code})."
            ) from error
    return found


def all_together(step: KeyedStep, models: Sequence[ModelSpec]) -> KeyedStep:
    """Return a step with the digest of all its models and keys.

    Raises:
        ModelError: ``MODEL_CHANGED`` if it had another one.
    """
    digest = hashlib.sha256()
    for key, model in zip([*step.members], models, strict=True):
        digest.update(f"{key}\0{model.sha256}\0".encode())
    if step.sha256 is not None and step.sha256 != digest.hexdigest():
        raise ModelError(
            "MODEL_CHANGED",
            f"the models by '{step.by}': expected sha256 {step.sha256[:12]}..., got {digest.hexdigest()[:12]}....",
            hint="take the sha256 out of the pipeline if the new models are wanted.",
        )
    return replace(step, sha256=digest.hexdigest())


def sharing_specs(models: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return models that share their equal inputs and outputs: a plan holds those of a thousand models once."""
    known: dict[Specs, Specs] = {}

    def one(specs: Specs) -> Specs:
        return known.setdefault(specs, specs)

    return [replace(model, inputs=one(model.inputs), outputs=one(model.outputs)) for model in models]
