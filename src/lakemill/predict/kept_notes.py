"""What a job keeps beside its checkpoint to spare work; if it is lost, the work is done again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lakemill.config.predict import PredictConfig
from lakemill.predict.progress import checkpoint_of
from lakemill_udfs.files import filesystem


def read_kept(config: PredictConfig, name: str) -> dict[str, Any]:
    """Return what a job kept under a name; nothing if there is none, or it was cut short."""
    store, inside = filesystem(_path(config, name))
    try:
        with store.open_input_stream(inside) as stream:
            return dict(json.loads(stream.read()))
    except (FileNotFoundError, ValueError):
        return {}


def write_kept(config: PredictConfig, name: str, kept: Mapping[str, Any]) -> None:
    """Keep something under a name, in place of what was kept there."""
    store, inside = filesystem(_path(config, name))
    store.create_dir(inside.rpartition("/")[0], recursive=True)
    with store.open_output_stream(inside) as stream:
        stream.write(json.dumps(kept).encode())


def _path(config: PredictConfig, name: str) -> str:
    return f"{checkpoint_of(config).location}.{name}.json"
