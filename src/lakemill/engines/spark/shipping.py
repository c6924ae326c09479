"""What executors on other machines cannot see, models and the user's own modules, is sent once as Spark artifacts."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import sysconfig
import tempfile
import zipfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lakemill_udfs.models import ModelSpec
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.callables import must_travel

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
        models = tuple(_ship_model(spark, model) if "://" not in model.location else model for model in plan.models)
    functions = [must_travel(function, "Spark's workers") for function in plan.pipeline.functions]
    archives = [
        (function, archive) for function in functions if (archive := ship_module(spark, function.partition(":")[0]))
    ]
    return replace(plan, models=models, archives=tuple(archives))


def is_local(spark: SparkSession) -> bool:
    """Return whether workers run on the driver's machine."""
    return bool(re.fullmatch(r"local(\[.*\])?", str(spark.conf.get("spark.master", ""))))


def ship_module(spark: SparkSession, module: str) -> str | None:
    """Send the top-level package or module of ``module``; return its archive's name, None if it is installed."""
    source = user_module(module)
    if source is None:
        return None
    archive = _zip_module(source, _fingerprint(source))
    _add(spark, archive, pyfile=True)
    return archive.name


def user_module(module: str) -> Path | None:
    """Return the file or folder of the user's top-level module; None if executors have it installed or built in."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None or spec.origin in ("built-in", "frozen"):
        return None
    path = Path(spec.origin)
    installed = [Path(folder).resolve() for folder in set(sysconfig.get_paths().values())]
    if any(path.resolve().is_relative_to(folder) for folder in installed) or "site-packages" in path.parts:
        return None
    return path.parent if path.name == "__init__.py" else path


def _ship_model(spark: SparkSession, model: ModelSpec) -> ModelSpec:
    path, name = Path(model.location), f"lakemill-model-{model.sha256[:16]}"
    archive = _zip_model(path, name)
    _add(spark, archive, archive=True)
    inside = f"{archive.name}/{path.name}"
    return replace(model, location=inside, shipped=True)


@lru_cache(maxsize=64)
def _zip_model(path: Path, name: str) -> Path:
    base = Path(tempfile.mkdtemp(prefix="lakemill-")) / name
    return Path(shutil.make_archive(str(base), "zip", root_dir=path.parent, base_dir=path.name))


@lru_cache(maxsize=64)
def _zip_module(source: Path, fingerprint: str) -> Path:
    target = Path(tempfile.mkdtemp(prefix="lakemill-")) / f"{source.stem}-{fingerprint}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in _python_files(source):
            name = file.relative_to(source.parent).as_posix()
            archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), file.read_bytes())
    return target


def _python_files(source: Path) -> list[Path]:
    return (
        [source]
        if source.is_file()
        else sorted(file for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    )


def _fingerprint(source: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in _python_files(source))).hexdigest()[:12]


_SENT: WeakKeyDictionary[SparkSession, set[str]] = WeakKeyDictionary()


def _add(spark: SparkSession, path: Path, *, pyfile: bool = False, archive: bool = False) -> None:
    """Send an archive once a session; its name holds its content's hash, so the same name is the same content."""
    sent = _SENT.setdefault(spark, set())
    if path.name not in sent:
        spark.addArtifact(str(path), pyfile=pyfile, archive=archive)
        sent.add(path.name)
