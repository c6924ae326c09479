"""One process of a training in TensorFlow: ``python -m lakemill.training.rank FOLDER``, started by a Spark task."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from lakemill.training.barrier import JOB, RESULT


def main(folder: Path) -> None:
    """Call the train function with its shard, and write down what it returns."""
    from pyspark import cloudpickle

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    said = json.loads(os.environ["TF_CONFIG"])
    rank, count = said["task"]["index"], len(said["cluster"]["worker"])
    train_function, converter, args, kwargs = cloudpickle.loads((folder / JOB).read_bytes())
    result = train_function(converter.shard(rank, count), *args, **kwargs)
    pickled = cloudpickle.dumps(result if rank == 0 else None)  # type: ignore[no-untyped-call]  # pyspark's copy of cloudpickle has no types
    (folder / RESULT).write_bytes(pickled)


def _end_with(parent: int) -> None:
    """End this process when the task's has ended: it would wait for the other ranks for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
