"""Why a model does not load: what a framework says, and what that means for its author."""

from __future__ import annotations

import re
from collections.abc import Sequence


def meaning(error: Exception, causes: Sequence[tuple[str, str]]) -> str:
    """Return what the first matching cause means; nothing if none does.

    Args:
        error: The framework's.
        causes: Patterns of what it says, each with what that means; ``{0}`` is the first group that was found.
    """
    for pattern, text in causes:
        if found := re.search(pattern, str(error)):
            return text.format(*(group for group in found.groups() if group))
    return ""
