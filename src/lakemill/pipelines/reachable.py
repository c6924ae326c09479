"""Whether a registry answers, found out in seconds: MLflow itself asks for minutes."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from lakemill_udfs.errors import ModelError

SECONDS = 6.0
"""For connecting, and again for the answer."""

SMALLEST_QUESTION = "api/2.0/mlflow/registered-models/search?max_results=1"
"""Of MLflow's own interface: a server that says it is well may have lost its database."""

BUSY = 500
"""An answer from here on is none: MLflow would ask again for minutes."""

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow takes as a store, and where they listen."""


def check_reachable(uri: str) -> None:
    """Look whether the registry at a URI answers; a file or SQLite needs no asking.

    Raises:
        ModelError: ``REGISTRY_UNREACHABLE``, within 15 seconds.
    """
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.partition("+")[0]
        if scheme in ("http", "https"):
            _ask(uri)
        elif scheme in PORTS and parts.hostname:
            socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), SECONDS).close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        why = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else type(cause).__name__
        raise unreachable(uri, why) from None


def unreachable(uri: str, why: str) -> ModelError:
    """Return the error of a registry that does not answer; ``why`` is the name of an exception or a code."""
    return ModelError(
        "REGISTRY_UNREACHABLE",
        f"the registry '{uri}' does not answer ({why}).",
        hint="is its server running, and can this machine reach it? --registry names another one.",
    )


def _ask(uri: str) -> None:
    """Send one small request; any answer is one, also a refusal.

    Raises:
        OSError: no answer, or one that says the server cannot answer.
    """
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    request = Request(f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{SMALLEST_QUESTION}")  # noqa: S310 -- http or https, see the caller
    try:
        urlopen(request, timeout=SECONDS).close()  # noqa: S310 -- as above
    except HTTPError as answer:
        answer.close()
        if answer.code >= BUSY:
            raise
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow may be told of a certificate that Python does not know
            raise
