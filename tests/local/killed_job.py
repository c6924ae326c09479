"""A small incremental job on the local engine, for a test that kills it: ``python -m tests.local.killed_job LAKE``."""

from __future__ import annotations

import sys

from lakemill.engines.checkpoint import Checkpoint
from lakemill.engines.engine import Following, Slice, Transaction, Watch
from lakemill.engines.local.engine import LocalEngine
from lakemill.engines.schemas import predictions_schema
from tests.unit.plans import function, plan_for


def run(lake: str) -> None:
    """Score what is new in ``LAKE/source`` into ``LAKE/predictions``, a file a slice."""
    with LocalEngine() as engine:
        source = engine.snapshot(f"{lake}/source")
        assert source is not None
        plan = plan_for([function("double")], source.schema, passthrough=("id",))
        engine.make(f"{lake}/predictions", predictions_schema(plan, source.schema))

        def on_slice(new: Slice) -> None:
            print("slice", new.batch_id, flush=True)
            with engine.scored(new.rows, plan, into=f"{lake}/predictions") as scored:
                engine.append(scored, f"{lake}/predictions", Transaction("job", new.batch_id))
            print("done", new.batch_id, flush=True)

        checkpoint = Checkpoint(f"{lake}/checkpoint")
        engine.follow(Following(source, None, False, "job", "run", checkpoint, 1), on_slice, Watch())


if __name__ == "__main__":
    run(sys.argv[1])
