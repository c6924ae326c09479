"""A pipeline as declared to one whose models are files with versions, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lakemill.config.trust import NAMED, Trust
from lakemill.pipelines.function_code import FunctionCode
from lakemill.pipelines.keyed_models import all_together, sharing_specs, with_table
from lakemill.pipelines.registry import Finder, FoundModel
from lakemill.pipelines.trust import check_trusted
from lakemill_udfs.errors import ConfigError, ModelError
from lakemill_udfs.masking import without_secrets
from lakemill_udfs.models import flavors
from lakemill_udfs.models.content import content_sha256
from lakemill_udfs.models.isolated_environment import requirements_of
from lakemill_udfs.models.model import ModelSpec
from lakemill_udfs.models.signature import signature_specs
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.steps.declared import FormatStep, ModelStep, PythonStep
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import Step, model_steps, with_models
from lakemill_udfs.tensors.spec import TensorSpec, declared

LOGGED_KEY = "lakemill_pipeline"
"""Key in an MLflow model's metadata under which a logged pipeline has its JSON form."""


@dataclass(frozen=True)
class Resolved:
    """A pipeline that can run.

    Args:
        pipeline: Each model step has its sha256; labels are read. Its ``version`` is the hash of all of it.
        models: One for each model step, in order; locations are on this machine.
        name: What to call it: its URI, or None if it was declared in place.
        code: The folder of each function that comes from a logged pipeline's own code.
    """

    pipeline: Pipeline
    models: tuple[ModelSpec, ...]
    name: str | None = None
    code: tuple[tuple[str, str], ...] = ()


def resolve(pipeline: Pipeline, registry: str | Finder | None = None, trust: Trust = NAMED) -> Resolved:
    """Resolve a pipeline's models, code and files.

    Args:
        pipeline: As declared, or as ``pipeline_of`` gave it.
        registry: MLflow tracking and registry URI, or what has found some of the models in it already.
        trust: Which code of models and logged pipelines may run.

    Raises:
        ModelError: a model is unknown, differs from its ``sha256``, or does not say what it needs;
            ``MODEL_NOT_TRUSTED``.
        ConfigError: ``LABELS_NOT_FOUND`` if a format step's labels file is not there; ``CODE_CHANGED`` if a function's
            code differs from its ``sha256``; ``FUNCTION_NOT_TRUSTED``.
    """
    steps: list[Step] = []
    models: list[ModelSpec] = []
    finder = registry if isinstance(registry, Finder) else Finder(registry)
    code = FunctionCode(finder, trust)
    for step in pipeline.steps:
        if isinstance(step, KeyedStep):
            keyed = with_table(step, finder.registry)
            found = sharing_specs([_resolve_model(one, finder.find(one.uri), trust) for one in keyed.members.values()])
            models += found
            steps.append(all_together(keyed, found))
        elif model_steps(step):
            wanted = [model if (inner := _only_model(model, finder)) is None else inner for model in model_steps(step)]
            found = [_resolve_model(model, finder.find(model.uri), trust) for model in wanted]
            models += found
            fixed = zip(model_steps(step), found, strict=True)
            steps.append(with_models(step, [replace(one, sha256=model.sha256) for one, model in fixed]))
        elif isinstance(step, PythonStep):
            steps.append(code.of_step(step))
        else:
            steps.append(_with_labels(step) if isinstance(step, FormatStep) else step)
    whole = Pipeline(tuple(steps), code.of_checks(pipeline.checks), pipeline.outputs, pipeline.inputs)
    return Resolved(whole, tuple(models), code=tuple(code.folders.items()))


def resolve_uri(uri: str, registry: str | None = None, trust: Trust = NAMED) -> Resolved:
    """Resolve a URI: a pipeline that ``Pipeline.log`` made, or any other model as a pipeline of one step.

    Raises:
        ModelError: as ``registry.find``.
        ConfigError: as ``resolve``.
    """
    finder = Finder(registry)
    return replace(resolve(pipeline_of(uri, finder), finder, trust), name=without_secrets(uri))


def pipeline_of(uri: str, finder: Finder) -> Pipeline:
    """Return the pipeline that a URI stands for, its models and functions by URIs that are found again.

    Raises:
        ModelError: as ``registry.find``.
    """
    found = finder.find(uri)
    logged = (found.described.get("metadata") or {}).get(LOGGED_KEY)
    if logged is None:
        return Pipeline((ModelStep(uri),))
    from lakemill.pipelines.described import logged_pipeline  # as in ``registry.mlmodel``

    return _prefixed(logged_pipeline(logged, found.name), uri)


def _only_model(step: ModelStep, finder: Finder) -> ModelStep | None:
    """Return the model that is all of a logged pipeline, as ``log_model`` logs what MLflow has no flavor for."""
    found = finder.find(step.uri)
    logged = (found.described.get("metadata") or {}).get(LOGGED_KEY)
    if logged is None or step.runtime is not None or step.env is not None:
        return None
    from lakemill.pipelines.described import logged_pipeline  # as in ``registry.mlmodel``

    inside = logged_pipeline(logged, found.name)
    only = inside.steps[0] if len(inside.steps) == 1 else None
    if not isinstance(only, ModelStep) or inside.checks or inside.outputs or _renames(only):
        return None
    return replace(step, uri=f"{step.uri}#{only.uri}", outputs={**only.outputs, **step.outputs})


def _renames(step: ModelStep) -> bool:
    return any(name != source for name, source in step.inputs.items()) or any(
        isinstance(value, str) for value in step.outputs.values()
    )


def _prefixed(inside: Pipeline, uri: str) -> Pipeline:
    """Return a logged pipeline whose models and functions are found inside it: ``models:/name/3#model_1``."""
    steps: list[Step] = []
    for step in inside.steps:
        if isinstance(step, FormatStep) and isinstance(step.labels, str):  # `log` writes the labels themselves
            raise ModelError("MODEL_PATH", f"the logged pipeline '{uri}' names a labels file outside its folder.")
        inner = [replace(model, uri=f"{uri}#{model.uri}") for model in model_steps(step)]
        whole = with_models(step, inner) if inner else step
        steps.append(replace(whole, code=uri) if isinstance(whole, PythonStep) else whole)
    checks = tuple(check if check.function is None else replace(check, code=uri) for check in inside.checks)
    return replace(inside, steps=tuple(steps), checks=checks)


def _resolve_model(step: ModelStep, found: FoundModel, trust: Trust) -> ModelSpec:
    known = flavors.recognise(found.path, found.described, step.runtime)
    if known is None:
        raise ModelError(
            "MODEL_NOT_FOUND",
            f"no runtime here takes the model '{step.uri}'."
            if step.runtime is None
            else f"the runtime '{step.runtime}' does not take the model '{step.uri}'.",
            hint="a model's file, as .onnx, .skops, .pkl or XGBoost's .json, or a folder with an MLmodel file.",
        )
    flavor, files = known
    check_trusted(step, flavor, found, files.path, trust)
    sha256 = content_sha256(files.path, files.beside)
    expected = step.sha256 or found.sha256
    if expected is not None and expected != sha256:
        raise ModelError(
            "MODEL_CHANGED",
            f"model '{step.uri}': expected sha256 {expected[:12]}..., got {sha256[:12]}....",
            hint="take the sha256 out of the pipeline if the new content is wanted."
            if step.sha256
            else "what the registry holds is not what was registered; register it again.",
        )
    options = flavors.options(flavor, found.name, files.path, found.described, step.options)
    requirements: tuple[str, ...] = ()
    if step.env == "isolated":  # it may not load here at all: what its signature says must do
        requirements = requirements_of(found.path)
        inputs, outputs = flavors.noted_specs(found.described, options) or signature_specs(found.described)
    else:
        inputs, outputs = flavors.specs(flavor, found.name, files.path, found.described, options)
    return ModelSpec(
        uri=step.uri,
        location=_location(found, files.path),
        flavor=flavor,
        name=found.name,
        version=found.version,
        sha256=sha256,
        inputs=inputs,
        outputs=_with_declared(outputs, step.outputs),
        beside=files.beside,
        options=options,
        certificate=_certificate(found),
        env=step.env,
        requirements=requirements,
    )


def _certificate(found: FoundModel) -> str | None:
    """Return how a converted model agrees with the original, as it was logged."""
    noted = flavors.logged_with(found.described).get("certificate")
    return str(noted["summary"]) if noted else None


def _location(found: FoundModel, path: Path) -> str:
    """Return where workers find what a runtime runs: the whole model, or a file of its folder."""
    if found.remote is None:
        return str(path)
    inside = path.relative_to(found.path).as_posix()
    return found.remote if inside == "." else f"{found.remote.rstrip('/')}/{inside}"


def _with_declared(
    outputs: tuple[TensorSpec, ...], given: Mapping[str, str | Mapping[str, Any]]
) -> tuple[TensorSpec, ...]:
    written = {name: declared(name, raw) for name, raw in given.items() if not isinstance(raw, str)}
    if written and len(outputs) == 1 and outputs[0].name == "output":
        return tuple(written.values())  # an unnamed output gets its declared name
    known = {spec.name: spec for spec in outputs} | written
    return tuple(known.values())


def _with_labels(step: FormatStep) -> FormatStep:
    if not isinstance(step.labels, str):
        return step
    try:
        lines = Path(step.labels).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(
            "LABELS_NOT_FOUND", f"there is no labels file '{step.labels}'.", hint="a text file with one label a line."
        ) from error
    return replace(step, labels=tuple(line for line in lines if line.strip()))
