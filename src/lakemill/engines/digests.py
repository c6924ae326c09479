"""``deduplicate: content``: which column's content says that two rows have the same input."""

from __future__ import annotations

import pyarrow as pa

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import ImageStep

CONTENT, DIGEST_OF_CONTENT = "content", "sha256"
"""Ingest's columns: an image's bytes, and their digest."""


def digested_column(plan: PredictPlan, schema: pa.Schema) -> tuple[str, bool]:
    """Return the column that rows are compared by, and whether it is the digest already.

    Args:
        plan: Says which columns the pipeline reads.
        schema: Of the source.

    Raises:
        ConfigError: ``DEDUPLICATE_COLUMNS`` if the pipeline reads something else than one column of bytes or text.
    """
    # An image step reads its file's path only where the row has no content.
    paths = {step.path_column for step in plan.pipeline.steps if isinstance(step, ImageStep)}
    read = {*plan.wiring.raw_columns, *(column.spec.name for column in plan.wiring.columns)} - paths
    names = [name for name in plan.source_columns if name in read]
    kinds = (pa.binary(), pa.string(), pa.large_binary(), pa.large_string())
    if len(names) != 1 or schema.field(names[0]).type not in kinds:
        raise ConfigError(
            "DEDUPLICATE_COLUMNS",
            f"deduplicate: content needs a pipeline that reads one column of bytes or text; it reads: "
            f"{', '.join(names)}.",
            hint="leave deduplicate out.",
        )
    if names == [CONTENT] and DIGEST_OF_CONTENT in schema.names:
        return DIGEST_OF_CONTENT, True  # computing it would read every image once more
    return names[0], False
