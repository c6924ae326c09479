"""What executors on other machines cannot see, models and the user's own modules, is sent once as Spark artifacts."""

from __future__ import annotations

import atexit
import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lakemill.engines.packages import Package, check_code, packages_of, user_package
from lakemill_udfs.models.content import content_files
from lakemill_udfs.models.model import ModelFiles, ModelSpec
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.callables import must_travel
from lakemill_udfs.steps.keyed import KeyedStep
from lakemill_udfs.steps.kinds import model_steps

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can say; equal content gives equal archives


def ship(spark: SparkSession, plan: PredictPlan) -> PredictPlan:
    """Send what the plan needs to the executors and return the plan that finds it there.

    In local mode workers see the driver's disk, so models stay where they are. The user's modules are sent in every
    mode: a worker's import path is not the driver's.
    """
    models = plan.models
    if not is_local(spark):
        models = _ship_models(spark, plan)
    for function in plan.pipeline.functions:
        must_travel(function, "Spark's workers")
    code = dict(plan.archives)
    functions = [str(function) for function in plan.pipeline.functions]
    # found before anything is sent: what is sent is on this process's import path too
    packages = {one: user_package(one.partition(":")[0], code.get(one)) for one in functions}
    sent = {package.source: _ship_package(spark, package) for package in packages_of(plan.pipeline, code)}
    check_code(plan.pipeline, code)  # what was sent is what the rows will name
    archives = [(one, sent[package.source]) for one, package in packages.items() if package is not None]
    return replace(plan, models=models, archives=tuple(archives))


def is_local(spark: SparkSession) -> bool:
    """Return whether workers run on the driver's machine."""
    return bool(re.fullmatch(r"local(\[.*\])?", str(spark.conf.get("spark.master", ""))))


def ship_module(spark: SparkSession, module: str) -> str | None:
    """Send the top-level package or module of ``module``; return its archive's name, None if it is installed."""
    package = user_package(module)
    return None if package is None else _ship_package(spark, package)


def _ship_package(spark: SparkSession, package: Package) -> str:
    archive = _zip_package(package, package.sha256)
    _add(spark, archive, pyfile=True)
    return archive.name


def _ship_models(spark: SparkSession, plan: PredictPlan) -> tuple[ModelSpec, ...]:
    """Send the models that are on this machine; those of keys together in one archive."""
    models: list[ModelSpec] = []
    coming = iter(plan.models)
    for step in plan.pipeline.steps:
        own = [next(coming) for _ in model_steps(step)]
        if isinstance(step, KeyedStep) and all("://" not in model.location for model in own):
            models += _ship_together(spark, own)
        else:
            models += [_ship_model(spark, model) if "://" not in model.location else model for model in own]
    return tuple(models)


def _ship_together(spark: SparkSession, models: Sequence[ModelSpec]) -> list[ModelSpec]:
    digest = hashlib.sha256("".join(model.sha256 for model in models).encode()).hexdigest()
    folders = {model.sha256[:16]: ModelFiles(Path(model.location), model.beside) for model in models}
    archive = _zip_models(tuple(folders.items()), f"lakemill-models-{digest[:16]}")
    _add(spark, archive, archive=True)
    names = {folder: f"{archive.name}/{folder}/{files.path.name}" for folder, files in folders.items()}
    return [replace(model, location=names[model.sha256[:16]], shipped=True) for model in models]


def _ship_model(spark: SparkSession, model: ModelSpec) -> ModelSpec:
    files = ModelFiles(Path(model.location), model.beside)
    archive = _zip_model(files, f"lakemill-model-{model.sha256[:16]}")
    _add(spark, archive, archive=True)
    inside = f"{archive.name}/{files.path.name}"
    return replace(model, location=inside, shipped=True)


@cache
def _scratch() -> Path:
    """Return a folder for archives, which goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="lakemill-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@lru_cache(maxsize=64)
def _zip_model(files: ModelFiles, name: str) -> Path:
    return _zip_models((("", files),), name)


@lru_cache(maxsize=8)
def _zip_models(folders: tuple[tuple[str, ModelFiles], ...], name: str) -> Path:
    """Return the archive of the files that models' sha256 cover, and of no others, each model in its folder."""
    target = _scratch() / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, files in folders:
            start = f"{folder}/" if folder else ""
            for inside, file in content_files(files):
                archive.write(file, f"{start}{files.path.name}/{inside}" if files.path.is_dir() else f"{start}{inside}")
    return target


@lru_cache(maxsize=64)
def _zip_package(package: Package, sha256: str) -> Path:
    target = _scratch() / f"{package.source.stem}-{sha256[:12]}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        files = package.files()
        folders = {parent.as_posix() for name, _ in files for parent in PurePosixPath(name).parents} - {"."}
        for folder in sorted(folders):  # without them Python finds no package that has no __init__.py
            archive.writestr(zipfile.ZipInfo(f"{folder}/", FIXED_DATE), b"")
        for name, file in files:
            archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), file.read_bytes())
    return target


_SENT: dict[tuple[str, str], set[str]] = {}


def _add(spark: SparkSession, path: Path, *, pyfile: bool = False, archive: bool = False) -> None:
    """Send an archive once; its name holds its content's hash, so the same name is the same content.

    What one session sends, all sessions of its application have, and to send it again is an error of Spark's; over
    Spark Connect each session has its own.
    """
    is_connect = type(spark).__module__.startswith("pyspark.sql.connect")
    session = str(spark.session_id) if is_connect else ""  # type: ignore[attr-defined]  # Connect's own attribute
    sent = _SENT.setdefault((str(spark.conf.get("spark.app.id", "")), session), set())
    if path.name not in sent:
        spark.addArtifact(str(path), pyfile=pyfile, archive=archive)
        sent.add(path.name)
