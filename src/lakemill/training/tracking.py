"""What an MLflow run says of its training data, and which version of a model may be used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from lakemill.pipelines.registry import mlflow_at
from lakemill.training.converter import SparkDatasetConverter, make_spark_converter
from lakemill_udfs.errors import ModelError
from lakemill_udfs.steps.declared import ImageStep


def log_training_data(converter: SparkDatasetConverter, context: str = "training") -> None:
    """Log into the active run what it trains on: the table's version as a dataset, the converter as parameters.

    Args:
        converter: Of the rows.
        context: What they are used for; ``training`` or ``validation``, for example.

    Raises:
        ModelError: ``EXTRA_MISSING`` without MLflow.
    """
    table = converter.table
    with mlflow_at(None) as mlflow:
        from mlflow.data.delta_dataset_source import DeltaDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = DeltaDatasetSource(path=table.location, delta_table_version=table.version, delta_table_id=table.id)
        name, rows = table.table.rstrip("/").rpartition("/")[2], json.dumps([table.id, table.version, table.where])
        digest = hashlib.sha256(rows.encode()).hexdigest()[:16]  # MLflow takes two of one digest for one
        dataset = MetaDataset(source, name=name, digest=digest)  # type: ignore[abstract]  # its stub says so; MLflow makes them too
        mlflow.log_input(dataset, context=context, tags={"where": table.where or ""})
        mlflow.log_params(
            {
                f"{context}.table": table.location,
                f"{context}.version": table.version,
                f"{context}.where": table.where or "",
                f"{context}.rows": table.rows,
                f"{context}.dtype": converter.dtype or "",
                f"{context}.images": json.dumps([asdict(step) for step in converter.images]),
            }
        )


def training_data_of(run_id: str, context: str = "training", registry: str | None = None) -> SparkDatasetConverter:
    """Return the rows that a run says it used, by ``log_training_data``: the same table, version, filter and steps.

    Args:
        run_id: The MLflow run's.
        context: As it was logged.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.

    Raises:
        ModelError: ``MODEL_NOT_FOUND`` if there is no such run, ``TRAINING_NOT_LOGGED`` if it says nothing of its data.
        TableError: ``TABLE_NOT_FOUND``, ``TABLE_VERSION`` if the version is gone.
    """
    with mlflow_at(registry) as mlflow:
        from mlflow.exceptions import MlflowException

        try:
            said = mlflow.get_run(run_id).data.params
        except MlflowException as error:
            raise ModelError(
                "MODEL_NOT_FOUND", f"there is no run {run_id}.", hint="registry=... names a store."
            ) from error
    if f"{context}.version" not in said:
        raise ModelError(
            "TRAINING_NOT_LOGGED",
            f"run {run_id} does not say what its '{context}' rows were.",
            hint="`log_training_data(converter)` in a run writes it down.",
        )
    return make_spark_converter(
        said[f"{context}.table"],
        dtype=said[f"{context}.dtype"] or None,
        version=int(said[f"{context}.version"]),
        where=said[f"{context}.where"] or None,
        images=[ImageStep(**step) for step in json.loads(said[f"{context}.images"])],
    )


def promote(
    name: str,
    version: int | str,
    *,
    to: str = "production",
    metric: str,
    at_least: float | None = None,
    registry: str | None = None,
) -> None:
    """Give a registered model's version an alias, if it scored well enough in the run that made it.

    It is refused if its metric is below ``at_least``, or below that of the version that has the alias now.

    Args:
        name: The registered model.
        version: The version to promote.
        to: The alias.
        metric: A metric of the version's run on rows that it was not trained on; more is better.
        at_least: The least value.
        registry: MLflow tracking and registry URI; None leaves MLflow's own settings.

    Raises:
        ModelError: ``MODEL_NOT_PROMOTED`` if it is refused, ``MODEL_NOT_FOUND`` if there is no such version.
    """
    with mlflow_at(registry) as mlflow:
        client = mlflow.MlflowClient()
        value = _metric(client, name, str(version), metric)
        if value is None:
            raise _refused(name, version, f"its run has no metric '{metric}'.")
        if at_least is not None and not value >= at_least:  # also where it is not a number
            raise _refused(name, version, f"its {metric} is {value:.6g}, below {at_least:.6g}.")
        holder = client.get_registered_model(name).aliases.get(to)
        if holder is not None and str(holder) != str(version):
            current = _metric(client, name, str(holder), metric)
            if current is not None and not value >= current:
                raise _refused(
                    name, version, f"its {metric} is {value:.6g}; version {holder}, '{to}' now, has {current:.6g}."
                )
        client.set_registered_model_alias(name, to, str(version))


def _metric(client: Any, name: str, version: str, metric: str) -> float | None:
    from mlflow.exceptions import MlflowException

    try:
        run_id = client.get_model_version(name, version).run_id
    except MlflowException as error:
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"there is no version {version} of the model '{name}' in the registry.",
            hint="--registry or registry=... names another one.",
        ) from error
    return client.get_run(run_id).data.metrics.get(metric) if run_id else None


def _refused(name: str, version: int | str, reason: str) -> ModelError:
    return ModelError(
        "MODEL_NOT_PROMOTED",
        f"version {version} of '{name}' keeps its place: {reason}",
        hint="an alias that must move all the same is set with MlflowClient().set_registered_model_alias.",
    )
