"""What of a text may be shown: no secret, and no character that a terminal obeys.

For messages, tables, reports, logs and identity files. ``lakemill_udfs.errors`` applies it to every message.
"""

from __future__ import annotations

import re

MASK = "***"

USER_INFO = re.compile(r"(?<=://)(?:[^/\s'\"]{1,500}|[^/\s'\":@]{0,500}:(?!\d{1,5}[/\s'\"])[^\s'\"]{1,500})@")
"""``user:password@`` of a URI, up to its last ``@`` before the path; passwords may hold a slash that is not encoded."""

SECRET_PARAMETER = re.compile(
    r"(?i)((?:(?<![a-z0-9])(?:sig|sas)|signature|credential|token|secret|passw(?:or)?d|pwd|"
    r"(?:api|access|secret|account)[_.-]?key)=)('[^']*'|\"[^\"]*\"|[^&;\s'\"]+)"
)
"""Secrets among a URI's or a connection string's parameters: shared access signatures, tokens, keys, passwords.

Both take a time that grows with the text and not with its square: names in a message are a stranger's too.
"""

SHORTEST_SECRET = 4
"""Characters; to hide shorter values would make every second word unreadable."""

_VARIABLES: dict[str, str] = {}
"""Values that this process has taken from its environment, and the names of their variables."""

UNSHOWN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, those that turn or hide the text around them, and halves of characters."""


def hide(value: str, variable: str) -> None:
    """Let ``masked`` replace a value of the environment by the name of its variable."""
    _VARIABLES[value] = variable


def masked(text: str) -> str:
    """Return a text without secrets: variables' names for their values, and ``***`` for what URIs hide."""
    for value in sorted(_VARIABLES, key=len, reverse=True):
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"${{{_VARIABLES[value]}}}")
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """Return a text with ``***`` for what URIs hide: the same in every process, as names in tables must be.

    Hides user info (``https://user:password@host``), shared access signatures (``?sig=...``), tokens, keys and
    passwords among the parameters; containers and accounts of ``abfss://container@account`` stay.
    """
    text = USER_INFO.sub(_user_info, text)
    return SECRET_PARAMETER.sub(lambda found: found[1] + MASK, text)


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text with control characters as escapes (``\x1b``, ``\u202e``): a terminal obeys none of them.

    Args:
        text: May hold anything.
        keep: Characters that stay, for example a line's end.
    """
    return UNSHOWN.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def shown(text: str) -> str:
    """Return a text as it may be shown in one line: ``masked`` and ``printable``."""
    return printable(masked(text))


def _user_info(found: re.Match[str]) -> str:
    scheme = found.string[: found.start()].rpartition("://")[0]
    is_container = scheme.lower().endswith(("abfss", "abfs", "wasb", "wasbs", "az")) and ":" not in found[0]
    return found[0] if is_container else f"{MASK}@"
