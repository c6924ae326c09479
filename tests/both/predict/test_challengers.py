"""A changed challenger is scored again by itself: its column alone is new, and no other model is called."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import pytest
from deltalake import DeltaTable
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from lakemill import ConfigError, PredictConfig
from lakemill.predict.challengers import remember
from lakemill.predict.kept_notes import read_kept
from tests.both.on import On
from tests.lake import add_images

ROWS = 12
BAD = 7  # the number that some models cannot do

MODEL = """
from pathlib import Path

import mlflow
import numpy as np


class Counting(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        numbers = np.asarray(model_input["number"], dtype=np.float64)
        if {bad} in numbers:
            raise ValueError("not this one")
        with Path({log!r}).open("a") as stream:
            stream.write("".join(f"{name} {{number:.0f}}\\n" for number in numbers))
        return numbers * {factor}


mlflow.models.set_model(Counting())
"""


class Models:
    """Models that multiply by a factor and write down each row that they score.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls.log"

    def save(self, name: str, factor: int, bad: int = -1) -> str:
        """Write a model and return its URI."""
        source = self.folder / f"{name}.py"
        source.write_text(MODEL.format(log=str(self.log), name=name, factor=factor, bad=bad))
        mlflow.pyfunc.save_model(
            str(self.folder / name),
            python_model=str(source),
            signature=ModelSignature(
                Schema([ColSpec(DataType.long, "number")]), Schema([ColSpec(DataType.double, "score")])
            ),
            pip_requirements=["mlflow"],
        )
        return str(self.folder / name)

    def calls(self) -> Counter[str]:
        """Return how many rows each model has scored since this was asked last."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        assert max(Counter(lines).values(), default=1) == 1, "a row was scored twice"
        return Counter(line.split()[0] for line in lines)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    add_images(tmp_path / "images", 0, ROWS)
    made = Models(tmp_path)
    for name, factor in (("one", 1), ("two", 2), ("three", 3), ("four", 4)):
        made.save(name, factor)
    made.save("picky", 5, BAD)
    made.log.unlink(missing_ok=True)
    return made


AFTER = {"python": {"function": "tests.both.predict.own_functions:halved", "outputs": {"half": {"dtype": "float64"}}}}


def job(models: Models, champion: str, *after: dict[str, Any], **challengers: str) -> PredictConfig:
    uris = {name: str(models.folder / model) for name, model in challengers.items()}
    model = str(models.folder / champion)
    step = {"shadow": {"champion": model, "challengers": uris}} if uris else {"model": {"uri": model}}
    return PredictConfig.load(
        name="trial",
        source={"table": f"{models.folder}/images", "key": ["path"], "columns": ["number"]},
        pipeline={"steps": [step, *after]},
        output={"table": f"{models.folder}/predictions"},
        rescore="changed",
        deduplicate=None,
    )


def rows_of(models: Models) -> list[dict[str, Any]]:
    table = DeltaTable(f"{models.folder}/predictions").to_pyarrow_table().sort_by("path")
    return table.to_pylist()  # type: ignore[no-any-return]


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a row without some columns and what says which models and pipeline it is of."""
    metadata = {
        name: value
        for name, value in row["metadata"].items()
        if name not in ("models", "pipeline_version", "elapsed_ns")
    }
    return {name: value for name, value in row.items() if name not in names} | {"metadata": metadata}


def names(row: dict[str, Any]) -> list[str]:
    return [model["name"] for model in row["metadata"]["models"]]


@pytest.mark.seam
def test_a_changed_challenger_scores_its_own_column_again_and_nothing_else(models: Models, on: On) -> None:
    on.predict(job(models, "one", AFTER, a="two", b="picky"))
    before = rows_of(models)
    models.calls()
    lines: list[str] = []
    result = on.predict(job(models, "one", AFTER, a="two", b="four"), progress=lines.append)
    assert models.calls() == {"four": ROWS}
    assert (result.rows, result.rows_rescored) == (0, ROWS)
    assert any(f"scored {ROWS} earlier rows again for out_b alone" in line for line in lines)
    after = rows_of(models)
    assert [without(row, "out_b") for row in after] == [without(row, "out_b") for row in before]
    assert [row["out_b"] for row in after] == [{"half": 2.0 * number, "error": None} for number in range(ROWS)]
    assert before[BAD]["out_b"]["half"] is None
    assert before[BAD]["out_b"]["error"]["code"] == "MODEL_FAILED"
    for old, new in zip(before, after, strict=True):
        assert names(old) == ["one", "two", "picky"]
        assert names(new) == ["one", "two", "four"]
        assert new["metadata"]["models"][:2] == old["metadata"]["models"][:2]
        times = new["metadata"]["elapsed_ns"], old["metadata"]["elapsed_ns"]
        assert [one == other for one, other in zip(*times, strict=True)] == [True, True, False, True]
        assert new["metadata"]["pipeline_version"] == result.pipeline_version
    assert on.predict(job(models, "one", AFTER, a="two", b="four")).rows_rescored == 0
    assert not models.calls()


def test_a_challenger_that_is_added_is_scored_alone_and_one_that_is_gone_costs_nothing(models: Models, on: On) -> None:
    on.predict(job(models, "one"))  # a pipeline without a shadow
    first = rows_of(models)
    models.calls()
    on.predict(job(models, "one", b="two"))
    assert models.calls() == {"two": ROWS}
    on.predict(job(models, "one", a="three", b="two"))  # before the other: times move
    assert models.calls() == {"three": ROWS}
    found = rows_of(models)
    assert [without(row, "out_a", "out_b") for row in found] == [without(row) for row in first]
    assert [(row["out_a"]["score"], row["out_b"]["score"]) for row in found] == [
        (3.0 * number, 2.0 * number) for number in range(ROWS)
    ]
    assert all(names(row) == ["one", "three", "two"] for row in found)
    assert all(len(row["metadata"]["elapsed_ns"]) == 3 and min(row["metadata"]["elapsed_ns"]) > 0 for row in found)
    assert on.predict(job(models, "one", a="three")).rows_rescored == 0
    assert on.predict(job(models, "one")).rows_rescored == 0
    assert not models.calls()


def test_a_changed_champion_scores_every_row_whole_and_new_rows_get_all_models(models: Models, on: On) -> None:
    on.predict(job(models, "one", a="two"))
    models.calls()
    on.predict(job(models, "three", a="two"))
    assert models.calls() == {"three": ROWS, "two": ROWS}
    add_images(models.folder / "images", ROWS, 3)
    on.predict(job(models, "three", a="four"))
    assert models.calls() == {"three": 3, "four": ROWS + 3}
    assert [row["out"]["score"] for row in rows_of(models)] == [3.0 * number for number in range(ROWS + 3)]
    assert [row["out_a"]["score"] for row in rows_of(models)] == [4.0 * number for number in range(ROWS + 3)]


def test_without_the_note_of_what_a_version_was_rows_are_scored_whole(models: Models, on: On) -> None:
    on.predict(job(models, "one", a="two"))
    (models.folder / "predictions_checkpoint" / "trial.shadow.json").unlink()
    models.calls()
    on.predict(job(models, "one", a="four"))
    assert models.calls() == {"one": ROWS, "four": ROWS}


def test_a_full_job_into_a_catalog_s_table_needs_no_place_for_notes() -> None:
    config = PredictConfig.load(
        name="trial",
        source={"table": "lake.images"},
        pipeline={"steps": [{"shadow": {"champion": "a.onnx", "challengers": {"b": "b.onnx"}}}]},
        output={"table": "lake.predictions"},
        mode="full",
    )
    remember(config, config.pipeline.declared())
    with pytest.raises(ConfigError, match="CHECKPOINT_UNKNOWN"):
        read_kept(config, "shadow")
