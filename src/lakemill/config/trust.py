"""What of models and logged pipelines may run as code. Plain Python: scoring in this process needs no pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Trust:
    """What of models and logged pipelines may run as code.

    Args:
        modules: Modules and packages from which a logged pipeline's functions and a model's loader may come, besides
            its own code and MLflow's loaders, for example ``features``.
        models: ``named`` loads any model that the job names. With ``pinned`` a model that is code (a pickle, or any
            other that MLflow loads) must be named by a version's number or have a ``sha256``: an alias that moved by
            itself, or a folder whose files were replaced, is not trusted. ``trust: pinned`` says the same.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 -- read by pydantic where a job's YAML is checked

    modules: tuple[str, ...] = ()
    models: Literal["named", "pinned"] = "named"

    def allows_module(self, module: str) -> bool:
        """Return whether a module is one of ``modules`` or within one."""
        return any(module == name or module.startswith(f"{name}.") for name in self.modules)


NAMED = Trust()
"""What is trusted where no job says it: the models that the caller names."""
