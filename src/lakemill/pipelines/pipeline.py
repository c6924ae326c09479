"""``Pipeline``: the value that workers know, with its ways to run: in-process, on a DataFrame, as an MLflow model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lakemill.config.own_output import writing
from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import Resolved, resolve
from lakemill.pipelines.traffic import StepByStep
from lakemill_udfs.steps.cascade import CascadeStep

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakemill.in_process.inference import Inference
    from lakemill.pipelines.plan_report import PlanReport


class Pipeline(StepByStep):
    """Steps and checks, declared once and run anywhere.

    Args:
        steps: ``ImageStep``, ``ModelStep``, ``PythonStep`` and ``FormatStep`` in order.
        checks: Conditions on inputs and outputs.
        outputs: The steps' outputs that make up ``out``; by default those that no later step reads.
        inputs: ``TensorSpec`` of columns that do not say it themselves (plain binary), or that may be null.
    """

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Return the pipeline of a YAML file: the ``pipeline`` section of a job, or its ``steps`` and ``checks`` alone.

        Raises:
            ConfigError: as ``JobConfig.load``.
        """
        from lakemill.config.base import read_yaml, validate
        from lakemill.config.predict import PipelineConfig
        from lakemill.config.variables import expand

        raw = expand(read_yaml(path))
        config = validate(PipelineConfig, raw.get("pipeline", raw), where=str(path))
        plain = config.declared()
        return cls(plain.steps, plain.checks, plain.outputs, plain.inputs)

    def to_yaml(self, path: str | Path | None = None) -> str:
        """Return the pipeline as YAML, as ``from_yaml`` and the ``pipeline`` section of a job read it.

        Args:
            path: Also write it to this file.

        Raises:
            ConfigError: ``FUNCTION_LOCAL`` if a function has no import path, ``FILE_NOT_WRITTEN``.
        """
        import yaml

        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        if path is not None:
            with writing(Path(path)):
                Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def load(cls, uri: str, registry: str | None = None) -> Self:
        """Return the pipeline that ``log`` put at ``models:/...``; any other model is a pipeline of one step.

        Raises:
            ModelError: there is no such model.
        """
        from lakemill.pipelines.registry import Finder
        from lakemill.pipelines.resolving import pipeline_of

        plain = pipeline_of(uri, Finder(registry))
        return cls(plain.steps, plain.checks, plain.outputs, plain.inputs)

    def calibrate(self, data: Any, registry: str | None = None) -> Self:
        """Return the pipeline with the thresholds of its cascades (``unless: auto``), learnt on a sample.

        Args:
            data: Rows drawn as those to come, in any form that ``infer`` takes.
            registry: MLflow registry of its models.

        Raises:
            ConfigError: ``CASCADE_SAMPLE`` if no row got through both models.
        """
        from lakemill.in_process.inputs import given
        from lakemill.pipelines.calibration import calibrate

        sample = given(data)
        found, _ = calibrate(self.resolve(registry), sample.kinds, sample.columns, sample.rows)
        thresholds = [getattr(step, "threshold", None) for step in found.pipeline.steps]
        steps = tuple(
            replace(step, threshold=threshold) if isinstance(step, CascadeStep) else step
            for step, threshold in zip(self.steps, thresholds, strict=True)
        )
        return replace(self, steps=steps)

    def resolve(self, registry: str | None = None) -> Resolved:
        """Find the models and fix their versions.

        Raises:
            ModelError: a model is unknown or does not say what it needs.
        """
        return resolve(self, registry)

    def infer(
        self,
        data: Any,
        *,
        timeout: float | None = None,
        dataset: Sequence[str] | str = ("*",),
        dataset_exclude: Sequence[str] | str = (),
        dataset_separator: str = ".",
        registry: str | None = None,
        allowed_roots: Sequence[str] = (),
        data_format: str | None = None,
    ) -> Any:
        """Score in this process: pandas in, pandas out; Arrow in, Arrow out; dict in, JSON-able dict out. No JVM.

        Models are found and loaded once: this object goes on with the version that an alias stood for at first.

        Args:
            data: ``pandas.DataFrame``, ``pyarrow.Table`` or ``RecordBatch``, a dict from each input to its batch, rows
                first, or a file's path (see ``infer_files.read_data``).
            timeout: Seconds after which the call is given up; None waits.
            dataset: What comes back: ``*`` (``time``, ``in``, ``out``, ``anomaly``), any of these, ``out.<name>``,
                ``check_failures``, ``metadata`` or its parts ``metadata.elapsed`` (nanoseconds of reading the input and
                of each step), ``metadata.last_model``, ``metadata.pipeline_version``.
            dataset_exclude: What is left out of that.
            dataset_separator: Between a part and a name: ``out.label``.
            registry: MLflow registry of its models.
            allowed_roots: Folders, files or URIs; the path of a row without content is opened only below one.
            data_format: ``custom-json`` takes a file's JSON, or an object, as one row, or a list of them, and gives a
                list of objects with the results by their own names.

        Raises:
            RowError: a row is bad; the message names the row and the reason, never its data.
            ModelError: a model is unknown, or does not fit ``data``.
            TableError: a column is of the wrong type.
            ConfigError: ``INFER_INPUT``, ``INFER_FORMAT``, ``INPUT_ROWS``, ``DATASET_UNKNOWN``, ``FILE_NOT_FOUND``,
                ``FILE_FORMAT``.
            RunError: ``INFER_TIMEOUT``.
        """
        from lakemill.in_process.parallel import within

        def call() -> Any:
            given = data
            if isinstance(data, str | Path):
                from lakemill.in_process.files import read_data

                given = read_data(data, self, data_format)
            return self._inference(registry).run(
                given, dataset, dataset_exclude, dataset_separator, allowed_roots, data_format=data_format
            )

        return within(timeout, call)

    def parallel_infer(
        self,
        items: Sequence[Any],
        *,
        timeout: float | None = None,
        num_parallel: int = 4,
        retries: int = 0,
        **options: Any,
    ) -> list[Any]:
        """Score several data at a time, in threads.

        Args:
            items: Each as ``infer`` takes it.
            timeout: Seconds for one attempt at one item; it is given up then, but goes on in the background.
            num_parallel: Most items at a time.
            retries: Further attempts at an item that failed.
            **options: As ``infer``.

        Returns:
            In the items' order the result, or in its place the error, of each.
        """
        from lakemill.in_process.parallel import each

        self._inference(options.get("registry"))  # models are found once, not by each thread
        return each(
            items,
            lambda item: self.infer(item, **options),
            timeout=timeout,
            num_parallel=num_parallel,
            retries=retries,
        )

    async def parallel_infer_async(self, items: Sequence[Any], **options: Any) -> list[Any]:
        """Do as ``parallel_infer`` without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(lambda: self.parallel_infer(items, **options))

    @functools.cached_property
    def _inferences(self) -> dict[str | None, Inference]:
        return {}

    def _inference(self, registry: str | None) -> Inference:
        if registry not in self._inferences:
            from lakemill.in_process.inference import Inference

            self._inferences[registry] = Inference(functools.partial(make_plan, self.resolve(registry), readable="all"))
        return self._inferences[registry]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what is declared; loaded models stay here."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def transform(
        self,
        df: DataFrame,
        *,
        columns: Sequence[str] | None = None,
        registry: str | None = None,
        allowed_roots: Sequence[str] = (),
    ) -> DataFrame:
        """Score a DataFrame, batch or stream, lazily and in one pass; every row comes out, with a nullable ``error``.

        The result can be the next pipeline's source: what is ``out.mask`` here is called so there too, in-process and
        on Spark, and keeps its dtype and shape through Delta.

        Args:
            df: The source.
            columns: Columns that are carried into the result; by default all that are not binary, nor an earlier
                result's own (``time``, ``out``, ...).
            registry: MLflow registry of its models.
            allowed_roots: Folders, files or URIs; the path of a row without content is opened only below one.

        Raises:
            ModelError: a model is unknown, or nothing feeds one of its inputs.
            TableError: a column is missing or of the wrong type.
        """
        from lakemill.pipelines.frames import score

        return score(df, self.resolve(registry), columns=columns, allowed_roots=allowed_roots)

    def plan(self, source: Any, *, registry: str | None = None, probe: bool = False) -> PlanReport:
        """Say what ``infer`` or ``transform`` would do with ``source``, and everything that keeps them from it.

        Args:
            source: A Spark DataFrame, or what ``infer`` takes.
            registry: MLflow registry of its models.
            probe: Also run one batch, and say which dtype and shape each output has.

        Returns:
            For each input the column, its form, its conversion and whether that copies; the result's schema; batch
            sizes with reasons; the models that aliases stand for; and all problems. ``print`` shows it.
        """
        from lakemill.pipelines.dry_run import plan_source

        return plan_source(self, source, registry=registry, probe=probe)

    def log(
        self,
        *,
        name: str = "pipeline",
        registered_model_name: str | None = None,
        alias: str | None = None,
        registry: str | None = None,
        input_example: Any = None,
    ) -> str:
        """Log the pipeline with all its models as one ordinary MLflow model, and return its URI.

        Any MLflow server can serve it, and ``models:/...`` of it is a pipeline again.

        Args:
            name: Name of the logged model.
            registered_model_name: Also register it under this name.
            alias: Alias that the new version gets, for example ``production``.
            registry: MLflow tracking and registry URI; None leaves MLflow's own settings.
            input_example: A small ``pandas.DataFrame`` of inputs.

        Raises:
            ModelError: ``EXTRA_MISSING`` without MLflow, or a model is unknown.
        """
        from lakemill.pipelines.logging_models import log_pipeline

        return log_pipeline(
            self,
            name=name,
            registered_model_name=registered_model_name,
            alias=alias,
            registry=registry,
            input_example=input_example,
        )
