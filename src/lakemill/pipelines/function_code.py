"""Where the code of a pipeline's functions comes from, and the digest of it that is part of the pipeline's version."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lakemill.config.trust import NAMED, Trust
from lakemill.engines.packages import code_changed, code_sha256, defines, user_package
from lakemill.pipelines.edited_code import import_anew_if_edited
from lakemill.pipelines.registry import Finder
from lakemill.pipelines.trust import check_pinned
from lakemill_udfs.errors import ConfigError
from lakemill_udfs.steps.declared import Check, PythonStep


@dataclass
class FunctionCode:
    """Finds functions' code; nothing of it is imported, and what was edited since it was is forgotten.

    Args:
        finder: Finds the logged pipelines that the functions belong to.
        trust: Which code of logged pipelines may run.
        folders: Gets the folder of each function that comes from a logged pipeline's own code.
    """

    finder: Finder
    trust: Trust = NAMED
    folders: dict[str, str] = field(default_factory=dict)

    def of_step(self, step: PythonStep) -> PythonStep:
        """Return a step with its code's digest.

        Raises:
            ConfigError: ``CODE_CHANGED`` if it differs from the step's ``sha256``, ``FUNCTION_NOT_TRUSTED``,
                ``FUNCTION_NOT_FOUND``.
        """
        return replace(step, sha256=self._sha256(step, step.function, step.data))

    def of_checks(self, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        """Return checks with the digests of their functions' code.

        Raises:
            ConfigError: as ``of_step``.
        """
        return tuple(
            check if check.function is None else replace(check, sha256=self._sha256(check, check.function))
            for check in checks
        )

    def _sha256(self, part: PythonStep | Check, function: Any, data: tuple[str, ...] = ()) -> str | None:
        folder = None if part.code is None else self._own_code(part.code, function)
        sha256 = code_sha256(function, folder, data)
        package = user_package(function.partition(":")[0]) if isinstance(function, str) and folder is None else None
        if package is not None and package.source.exists():
            import_anew_if_edited(package)
        if part.sha256 is not None and part.sha256 != sha256:
            hint = "take the sha256 out of the pipeline if the new code is wanted."
            raise code_changed(function, part.sha256, sha256, hint)
        return sha256

    def _own_code(self, uri: str, function: str) -> str | None:
        """Return the folder of a logged pipeline's own code if the function is there; None if its module is trusted.

        What an artifact names runs only with its own code, or from modules that the job allows.
        """
        module = function.partition(":")[0]
        found = self.finder.find(uri)
        if found.has_own(module):
            folder = found.path / "code"
            if not defines(str(folder), function):
                raise ConfigError("FUNCTION_NOT_FOUND", f"the code of '{uri}' has no '{function}'.")
            check_pinned(uri, None, self.trust)
            self.folders[function] = str(folder)
            return str(folder)
        if self.trust.allows_module(module):
            return None
        raise ConfigError(
            "FUNCTION_NOT_TRUSTED",
            f"the logged pipeline '{uri}' names '{function}', which is not in its own code.",
            hint=f"trust: {{modules: [{module}]}} allows it, if you know what it does.",
        )
