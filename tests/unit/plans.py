"""Plans of small pipelines, as the driver makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lakemill.pipelines.planning import make_plan
from lakemill.pipelines.resolving import resolve
from lakemill_udfs.pipeline import Pipeline
from lakemill_udfs.plan import PredictPlan
from lakemill_udfs.steps.declared import Check, PythonStep
from lakemill_udfs.steps.kinds import Step
from lakemill_udfs.tensors.spec import TensorSpec, arrow_tensors

Y = {"y": {"dtype": "float32"}}


def function(name: str, outputs: dict[str, Any] = Y) -> PythonStep:
    """Return the step of a function of ``features`` that reads ``x``."""
    return PythonStep(f"tests.unit.features:{name}", outputs, {"x": "x"})


def plan_for(
    steps: Sequence[Step],
    schema: pa.Schema,
    checks: Sequence[Check] = (),
    inputs: Sequence[TensorSpec] = (),
    **options: Any,
) -> PredictPlan:
    """Return the plan of these steps over a table."""
    return make_plan(
        resolve(Pipeline(tuple(steps), tuple(checks), inputs=tuple(inputs))), arrow_tensors(schema), **options
    )
