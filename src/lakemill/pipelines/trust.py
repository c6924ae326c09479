"""Whether a model may be loaded: some formats are data, all others are code that runs in this process."""

from __future__ import annotations

import re
from pathlib import Path

from lakemill.config.trust import Trust
from lakemill.pipelines.registry import FoundModel
from lakemill_udfs.errors import ModelError
from lakemill_udfs.models.flavors import runs_code
from lakemill_udfs.steps.declared import ModelStep

FIXED = re.compile(r"models:/([^/@#]+/\d+|m-[0-9a-f]{32})(#.*)?")
"""A registered version by its number, or a logged model by its id: what it holds does not change by itself."""


def is_pinned(uri: str, sha256: str | None) -> bool:
    """Return whether the user said which content is meant; the digest of a logged pipeline's part is the pipeline's."""
    return FIXED.fullmatch(uri) is not None or (sha256 is not None and "#" not in uri)


def check_trusted(step: ModelStep, flavor: str, found: FoundModel, path: Path, trust: Trust) -> None:
    """Refuse a model that would run code which the job does not trust; nothing of it is loaded.

    Args:
        step: Names it, and may give its sha256 and say that a bare pickle is trusted.
        flavor: The runtime that would load it.
        found: The model.
        path: The file or folder that the runtime would load.
        trust: Of the job.

    Raises:
        ModelError: ``MODEL_NOT_TRUSTED``.
    """
    refusal = _refusal(step, found, trust)
    if refusal is not None and runs_code(flavor, found.name, path, found.described):  # asked last: skops takes seconds
        raise refusal


def _refusal(step: ModelStep, found: FoundModel, trust: Trust) -> ModelError | None:
    """Return why a model may not be loaded if loading it runs code."""
    loader = str(((found.described.get("flavors") or {}).get("python_function") or {}).get("loader_module", "mlflow"))
    if loader.partition(".")[0] != "mlflow" and not found.has_own(loader) and not trust.allows_module(loader):
        return ModelError(
            "MODEL_NOT_TRUSTED",
            f"the model '{step.uri}' names its loader '{loader}', which is neither MLflow's nor in its own code.",
            hint=f"trust: {{modules: [{loader}]}} allows it, if you know what it does.",
        )
    if not found.described and not step.trust and "#" not in step.uri:
        return ModelError(
            "MODEL_NOT_TRUSTED",
            f"the model '{step.uri}' can run code when it is loaded (a pickle, Python, or skops' unknown types).",
            hint="trust: true on its step if you know where it is from; skops and ONNX files need no trust.",
        )
    return _not_pinned(step.uri, step.sha256, trust)


def check_pinned(uri: str, sha256: str | None, trust: Trust) -> None:
    """Refuse code that is not pinned, where the job trusts only what is.

    Raises:
        ModelError: ``MODEL_NOT_TRUSTED``.
    """
    refusal = _not_pinned(uri, sha256, trust)
    if refusal is not None:
        raise refusal


def _not_pinned(uri: str, sha256: str | None, trust: Trust) -> ModelError | None:
    if trust.models != "pinned" or is_pinned(uri, sha256):
        return None
    return ModelError(
        "MODEL_NOT_TRUSTED",
        f"loading '{uri}' runs code, and it may become another one by itself; trust is 'pinned'.",
        hint="name a version's number (models:/name/3) or give the model step its sha256; `lakemill plan` without "
        "`trust: pinned` prints it. ONNX models are no code.",
    )
