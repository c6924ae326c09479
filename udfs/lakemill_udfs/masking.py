"""Secrets in texts: what must not be read in messages, tables, reports, logs and identity files."""

from __future__ import annotations

import re

MASK = "***"

USER_INFO = re.compile(r"(?<=://)[^/\s'\"]+@")
"""``user:password@`` of a URI, up to its last ``@`` before the path."""

SECRET_PARAMETER = re.compile(
    r"(?i)\b((?:x-amz-|x-goog-)?(?:sig|signature|security-token|credential|token|access_token|sas|secret|password|pwd|"
    r"api_?key|access_?key|secret_?key|account_?key|sharedaccesssignature)=)[^&;\s'\"]+"
)
"""Secrets among a URI's or a connection string's parameters: shared access signatures, tokens, keys, passwords."""


def masked(text: str) -> str:
    """Return a text with the secrets of its URIs replaced by ``***``.

    Hides user info (``https://user:password@host``), shared access signatures (``?sig=...``), tokens, keys and
    passwords among the parameters; containers and accounts of ``abfss://container@account`` stay.
    """
    text = USER_INFO.sub(_user_info, text)
    return SECRET_PARAMETER.sub(lambda found: found[1] + MASK, text)


def _user_info(found: re.Match[str]) -> str:
    scheme = found.string[: found.start()].rpartition("://")[0]
    is_container = scheme.lower().endswith(("abfss", "abfs", "wasb", "wasbs", "az")) and ":" not in found[0]
    return found[0] if is_container else f"{MASK}@"
