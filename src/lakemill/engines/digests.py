"""``deduplicate: content``: what says that two rows have the same input, and so the same result."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lakemill_udfs.errors import ConfigError
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.check_fit import inputs_read
from lakemill_udfs.steps.checks import compile_check
from lakemill_udfs.steps.declared import ImageStep

BYTES_OR_TEXT = (pa.binary(), pa.string(), pa.large_binary(), pa.large_string())


@dataclass(frozen=True)
class Compared:
    """What rows are compared by.

    Args:
        column: The one column that the steps read. Its digest is always computed: a column that is called ``sha256``
            may say anything.
        beside: Carried columns that checks read, whose verdict depends on them too.
    """

    column: str
    beside: tuple[str, ...] = ()


def compared(plan: PredictPlan, schema: pa.Schema) -> Compared:
    """Return what the rows of a source are compared by.

    Args:
        plan: Says which columns the pipeline reads.
        schema: Of the source.

    Raises:
        ConfigError: ``DEDUPLICATE_COLUMNS`` if the steps read something else than one column of bytes or text, or if a
            check may read anything.
    """
    # An image step reads its file's path only where the row has no content.
    paths = {step.path_column for step in plan.pipeline.steps if isinstance(step, ImageStep)}
    images = {step.column for step in plan.pipeline.steps if isinstance(step, ImageStep)}
    read = {*plan.input_columns, *(name for name in plan.wiring.raw_columns if name in images or name not in paths)}
    names = [name for name in plan.source_columns if name in read]
    if len(names) != 1 or names[0] not in schema.names or schema.field(names[0]).type not in BYTES_OR_TEXT:
        raise ConfigError(
            "DEDUPLICATE_COLUMNS",
            f"deduplicate: content needs a pipeline that reads one column of bytes or text; it reads: "
            f"{', '.join(names)}.",
            hint="leave deduplicate out.",
        )
    unknown = [check.name for check in plan.pipeline.checks if check.code is not None]
    if unknown:
        raise ConfigError(
            "DEDUPLICATE_COLUMNS",
            f"deduplicate: content needs checks whose columns are known; '{unknown[0]}' is a function of the logged "
            "pipeline.",
            hint="leave deduplicate out.",
        )
    checks = [compile_check(check) for check in plan.pipeline.checks]
    beside = inputs_read(checks, [name for name in plan.passthrough if name != names[0]])
    return Compared(names[0], beside)
