"""Evidence and promotion: what the tables say of each model, and an alias that moves only if they support it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ConfigError, LakemillError, PredictConfig, predict_table
from lakemill.cli.app import run
from lakemill.pipelines.intervals import ratio_interval
from lakemill.pipelines.registry import alias_version, mlflow_at
from lakemill.predict.answers import answer_of
from lakemill.predict.promotion import Requirement, compare, promote
from tests.lake import FORMAT_STEP, IMAGE_STEP, digits_job, image_rows, onnx_classifier

ROWS = 60


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, of which one is broken, and a registry with two versions of a model."""
    folder = tmp_path_factory.mktemp("evidence")
    write_deltalake(folder / "images", image_rows(0, ROWS, (2,)))
    with mlflow_at(f"sqlite:///{folder}/mlflow.db") as mlflow:
        import mlflow.onnx

        for version, bias in (("1", 0.0), ("2", 1.0)):
            model = onnx.load(str(onnx_classifier(folder / "model.onnx", bias=bias)))
            mlflow.onnx.log_model(model, name="m", registered_model_name="digits", pip_requirements=[])
            if version == "1":
                mlflow.MlflowClient().set_registered_model_alias("digits", "production", "1")
    return folder


def job(lake: Path, step: dict[str, Any], name: str) -> PredictConfig:
    return digits_job(
        lake,
        "engine.name=local",
        name=name,
        registry=f"sqlite:///{lake}/mlflow.db",
        pipeline__steps=[IMAGE_STEP, step, FORMAT_STEP],
        output__table=f"{lake}/{name}",
    )


def shadow(lake: Path) -> PredictConfig:
    step = {"shadow": {"champion": "models:/digits@production", "challengers": {"newer": "models:/digits/2"}}}
    return job(lake, step, "shadow")


def test_a_shadow_is_compared_and_promoted_once_the_tables_support_it(lake: Path, tmp_path: Path) -> None:
    config, registry = shadow(lake), f"sqlite:///{lake}/mlflow.db"
    with pytest.raises(LakemillError, match="TABLE_NOT_FOUND"):
        compare(config)
    predict_table(config)
    champion, newer = compare(config)
    assert (champion.role, champion.rows, champion.errors.count) == ("champion", ROWS - 1, 0)
    assert (newer.role, newer.version, newer.rows) == ("newer", "2", ROWS - 1)
    assert newer.agreement is not None
    assert (newer.agreement.count, newer.agreement.rows) == (ROWS - 1, ROWS - 1)  # a bias for all classes
    assert newer.rows_per_second > 0
    assert any("100.00% (93.9" in line for line in newer.lines())  # a share is never alone
    assert sum(rows for _, _, rows in newer.answers) == ROWS - 1
    assert not newer.differences

    with pytest.raises(LakemillError, match=r"PROMOTE_REFUSED.*stays at version 1.*NO   agreement >= 0.99"):
        promote(config, "digits", "2", "production", ["rows>=50", "agreement>=0.99"])
    assert alias_version("models:/digits@production", registry) == "1"
    with pytest.raises(ConfigError, match="PROMOTE_REQUIREMENT"):
        promote(config, "digits", "2", "production", ["agreement is fine"])
    with pytest.raises(ConfigError, match="EVIDENCE_NONE"):
        promote(config, "digits", "3", "production", ["rows>=1"])

    path = tmp_path / "shadow.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json", exclude_defaults=True)))
    arguments = ["--require", "rows>=50", "--require", "agreement>=0.9", "--config", str(path)]
    assert run(["promote", "digits", "2", *arguments]) == 0
    assert alias_version("models:/digits@production", registry) == "2"
    written = DeltaTable(lake / "shadow_promotions").to_pyarrow_table().sort_by("time").to_pylist()
    assert [(row["moved"], row["version_before"]) for row in written] == [(False, "1"), (True, "1")]
    assert "yes  agreement >= 0.9: 100.00%" in written[1]["findings"][1]
    assert json.loads(written[1]["evidence"])["agreement"]["count"] == ROWS - 1
    with pytest.raises(ConfigError, match="EVIDENCE_NONE"):  # the champion is another one now
        compare(config)


def test_the_arms_of_a_split_are_compared_by_what_they_scored(lake: Path) -> None:
    step = {"split": {"control": "models:/digits/1", "challengers": {"newer": "models:/digits/2"}}}
    config = job(lake, step, "split")
    predict_table(config)
    control, newer = compare(config)
    assert control.rows + newer.rows == ROWS - 1
    assert min(control.rows, newer.rows) > 10
    assert control.agreement is None
    assert control.correct is not None
    assert control.correct.rows == control.rows
    assert [label for label, _ in control.by_label] == ["0", "1", "2"]
    assert sum(share.rows for _, share in control.by_label) == control.rows


def test_time_has_an_interval_over_batches_and_rows_that_differ_most_come_first(lake: Path) -> None:
    other = onnx_classifier(lake / "other.onnx", weights=-1.0)
    step = {"shadow": {"champion": "models:/digits/1", "challengers": {"other": str(other)}}}
    config = job(lake, step, "differs")
    predict_table(config.model_copy(update={"engine": config.engine.model_copy(update={"batch_rows": 8})}))
    champion, other_one = compare(config)
    for one in (champion, other_one):
        low, high = one.speed.rows_per_second_interval
        assert one.speed.batches >= 4
        assert 0 < low < one.rows_per_second < high
        assert any(f"{one.speed.batches} batches" in line for line in one.lines())
    assert other_one.agreement is not None
    assert other_one.pairs
    assert all(ours != theirs for ours, theirs, _ in other_one.pairs)
    sizes = [one.size for one in other_one.differences]
    assert sizes == sorted(sizes, reverse=True)
    assert all(0 < size <= 1 for size in sizes)
    rows = {row["path"]: row for row in DeltaTable(lake / "differs").to_pyarrow_table().to_pylist()}
    for one in other_one.differences:
        row = rows[one.key]
        assert one.champion.startswith(row["out"]["label"])
        assert one.challenger.startswith(row["out_other"]["label"])
        assert one.truth == row["label"]
        assert one.size == pytest.approx((row["out"]["probability"] + row["out_other"]["probability"]) / 2)
    judged = Requirement.read("rows_per_second>=1000000000")
    assert judged.judge(other_one)[0] is False


def test_in_a_cascade_and_an_ensemble_a_model_is_judged_by_its_own_answers_alone(lake: Path) -> None:
    step = {
        "cascade": {
            "first": "models:/digits/1",
            "then": "models:/digits/2",
            "unless": "out.confidence >= 0.55",
            "softmax": True,
        }
    }
    config = job(lake, step, "cascade")
    predict_table(config)
    first, then = compare(config)
    assert first.correct is not None
    assert then.correct is not None
    assert first.rows == ROWS - 1
    assert first.correct.rows + then.correct.rows == ROWS - 1
    assert then.correct.rows == then.rows
    members = {"ensemble": {"models": {"a": "models:/digits/1", "b": "models:/digits/2"}}}
    config = job(lake, members, "ensemble")
    predict_table(config)
    assert [one.correct for one in compare(config)] == [None, None]  # the answer is of both


def test_models_that_give_numbers_are_compared_by_their_distance() -> None:
    fields = {"out": pa.field("out", pa.struct([])), "out.price": pa.field("price", pa.float64())}
    answer = answer_of(fields)
    assert answer is not None
    table = pa.table({"out.price": [1.0, 2.0, None], "out_b.price": [1.5, -2.0, 3.0]})
    ours, theirs = answer.read(table, "out"), answer.read(table, "out_b")
    assert ours is not None
    assert theirs is not None
    assert ours.texts is None
    assert ours.distance(theirs, np.arange(3)).tolist() == [0.5, 4.0, 0.0]
    assert theirs.text(1) == "-2"


def test_class_scores_are_compared_by_their_total_variation() -> None:
    scores = pa.list_(pa.float32())
    answer = answer_of({"out.p": pa.field("p", scores)})
    assert answer is not None
    table = pa.table(
        {"out.p": pa.array([[1.0, 0.0], [0.5, 0.5]], scores), "out_b.p": pa.array([[0.0, 1.0], [0.25, 0.75]], scores)}
    )
    ours, theirs = answer.read(table, "out"), answer.read(table, "out_b")
    assert ours is not None
    assert theirs is not None
    assert ours.distance(theirs, np.arange(2)).tolist() == [1.0, 0.25]
    assert (ours.text(0), theirs.text(0)) == ("0 (1)", "1 (1)")


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says() -> None:
    """Over 200 seeds, in 88 % or more for 20 batches: the bootstrap of few pieces is somewhat narrow."""
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        rows = random.integers(16, 33, 20)
        found = ratio_interval(rows * random.gamma(9.0, 1 / 9, 20), rows)
        assert found is not None
        covered += found[0] <= 1.0 <= found[1]
    assert covered >= 176
    assert ratio_interval(np.ones(1), np.ones(1)) is None
