"""Delta's jars for a local session, fetched once by Spark's own resolver.

``spark.jars.packages`` would resolve them again at every start, with a page of output and without a usable error when
the machine is offline. Fetched once into the user's cache folder, later sessions take the files as they are.
On a cluster nothing of this is used: see ``conf/spark.conf``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from lakemill.engines.spark.environment import check_versions, installed_versions
from lakemill_udfs.errors import SetupError
from lakemill_udfs.own_files import check_own, own_folder

logger = logging.getLogger(__name__)

HAD_BY_SPARK = (
    "com.fasterxml.jackson.core",
    "com.github.luben",
    "commons-logging",
    "commons-pool",
    "io.airlift",
    "org.apache.hadoop",
    "org.apache.logging.log4j",
    "org.apache.parquet",
    "org.locationtech.jts",
    "org.roaringbitmap",
    "org.slf4j",
    "org.xerial.snappy",
)
"""Groups that Delta asks for and that Spark brings itself, in the versions it was built with."""


def cache_folder() -> Path:
    """Return the folder in which Lakemill keeps what can be fetched or made again; it need not be there.

    Raises:
        SetupError: ``CACHE_NOT_OURS`` if others than this user and root can write to it: what is in it is run.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakemill"
    check_own(folder)
    return folder


def delta_jars(spark: str, delta: str) -> list[Path]:
    """Return the jars to put on Spark's class path, after fetching them the first time (13 MB).

    Args:
        spark: Version of pyspark.
        delta: Version of delta-spark; the jars are those of its minor version that are published for this Spark.

    Raises:
        SetupError: ``SPARK_DELTA_VERSIONS`` if the two do not go together, ``DELTA_JARS`` if they cannot be fetched.
    """
    delta = check_versions(spark, delta)
    folder = cache_folder() / f"delta-{delta}-spark-{spark}"
    if not folder.is_dir():
        _fetch(f"io.delta:delta-spark_{'.'.join(spark.split('.')[:2])}_2.13:{delta}", folder)
    return sorted(folder.glob("*.jar"))


def _fetch(package: str, folder: Path) -> None:
    logger.warning("Fetching Delta's jars, once (%s, 13 MB) ...", package)
    own_folder(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        script = Path(scratch, "nothing.py")
        script.touch()
        done = subprocess.run(
            [
                _spark_submit(),
                "--master",
                "local",
                "--conf",
                f"spark.jars.ivy={scratch}",
                "--packages",
                package,
                "--exclude-packages",
                ",".join(f"{group}:*" for group in HAD_BY_SPARK),
                "--driver-java-options",
                _trust_options(Path(scratch)),
                script,
            ],
            env={**os.environ, "PYSPARK_PYTHON": sys.executable},
            capture_output=True,
            check=False,
        )
        fetched = Path(scratch, "jars")
        if done.returncode != 0 or not any(fetched.glob("*delta-spark*.jar")):
            raise SetupError(
                "DELTA_JARS",
                f"Spark could not fetch {package}.",
                hint="the first start needs a Maven repository: check the network and the proxy, "
                "or name a mirror by spark.jars.ivySettings in spark-defaults.conf.",
            )
        if not folder.exists():  # another process may have been quicker
            fetched.rename(folder)


def _spark_submit() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent / "bin" / ("spark-submit.cmd" if os.name == "nt" else "spark-submit")


def _trust_options(folder: Path) -> str:
    # Networks that look into TLS name their certificates by SSL_CERT_FILE; pip and Python follow it, Java does not.
    bundle = os.environ.get("SSL_CERT_FILE")
    if not bundle:
        return ""
    store = folder / "trust.jks"
    store.write_bytes(_key_store(ssl.create_default_context(cafile=bundle).get_ca_certs(binary_form=True)))
    return f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStoreType=jks"


def _key_store(certificates: list[bytes]) -> bytes:
    """Return DER certificates as a Java key store (format JKS, version 2, password ``changeit``)."""
    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates))
    for index, certificate in enumerate(certificates):
        alias, kind = str(index).encode(), b"X.509"
        body += struct.pack(">IH", 2, len(alias)) + alias + struct.pack(">QH", 0, len(kind)) + kind
        body += struct.pack(">I", len(certificate)) + certificate
    return body + hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()  # noqa: S324 -- the format's


if __name__ == "__main__":  # `make setup` fetches ahead of the first session
    try:
        delta_jars(*installed_versions())
    except SetupError as problem:
        sys.exit(str(problem))
