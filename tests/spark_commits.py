"""Who commits few rows of a job on Spark."""

from __future__ import annotations

NAME = "spark.hadoop.fs.defaultFS"

BY_SPARK = {NAME: "file:///"}
"""With a file system that is named, Spark commits few rows too, as it commits many: so do the suite's session and every
other life of the kills. The matrix and the command lines leave them to the local engine, as users do."""

BY_LOCAL_ENGINE = {NAME: ""}
