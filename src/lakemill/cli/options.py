"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of the job.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="key.path=value, over the YAML file; may be repeated.", show_default=False),
]
Json = Annotated[
    bool, typer.Option("--json", help="Last line of stdout: one JSON object with counts, versions and seconds.")
]
Registry = Annotated[
    str | None,
    typer.Option(help="MLflow tracking and registry URI, for example sqlite:///lake/mlflow.db.", show_default=False),
]
ReplaceTable = Annotated[
    bool, typer.Option("--replace-table", help="With --mode full, overwrite the whole output, whatever it is; asks.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait while another run of the job goes on.")]
