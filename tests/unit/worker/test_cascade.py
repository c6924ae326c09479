"""A cascade: only unsure rows go on, in full batches, and what is learnt of a sample keeps its target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake
from scipy import stats

from lakemill import CascadeStep, ConfigError, ModelError, ModelStep, Pipeline, PredictConfig, predict_table
from lakemill.pipelines.calibration import learn_threshold
from lakemill.pipelines.intervals import interval, lower_bound, upper_bound
from tests.lake import IMAGE_STEP, digits_job, image_rows, onnx_classifier

TARGET = {"agreement": 0.98, "confidence": 0.95}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    onnx_classifier(folder / "small.onnx")
    onnx_classifier(folder / "large.onnx", bias=100.0)  # the same classes, told apart by their scores
    onnx_classifier(folder / "wide.onnx", classes=4)
    return folder


def step(models: Path, unless: str, **options: Any) -> CascadeStep:
    return CascadeStep(str(models / "small.onnx"), str(models / "large.onnx"), unless, **options)


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"pixels": list((rng.random((rows, 64)) * rng.random((rows, 1))).astype(np.float32))})


def alone(models: Path, name: str, data: pd.DataFrame) -> Any:
    return np.stack(Pipeline((ModelStep(str(models / f"{name}.onnx")),)).infer(data)["out.logits"])


def test_sure_rows_keep_the_first_answer_and_the_others_get_the_second(models: Path) -> None:
    data = frame(200)
    small, large = alone(models, "small", data), alone(models, "large", data)
    limit = float(np.median(small.max(axis=1)))
    result = Pipeline((step(models, f"out.confidence >= {limit}"),)).infer(data, dataset=["out", "metadata.models"])
    sure = small.max(axis=1) >= limit
    assert 80 < sure.sum() < 120
    np.testing.assert_allclose(np.stack(result["out.logits"]), np.where(sure[:, None], small, large), rtol=1e-4)
    assert [[model["name"] for model in one] for one in result["metadata.models"]] == [
        ["small"] if one else ["small", "large"] for one in sure
    ]


@pytest.mark.parametrize(("unless", "answers"), [("out.confidence > -1e9", "small"), ("out.confidence > 1e9", "large")])
def test_all_or_none_go_on(models: Path, unless: str, answers: str) -> None:
    data = frame(20)
    result = Pipeline((step(models, unless),)).infer(data)
    np.testing.assert_allclose(np.stack(result["out.logits"]), alone(models, answers, data), rtol=1e-4)


def test_what_is_wrong_is_said_at_once(models: Path) -> None:
    with pytest.raises(ConfigError, match="CASCADE_OPEN"):
        Pipeline((step(models, "auto"),)).infer(frame(2))
    with pytest.raises(ConfigError, match="CASCADE_STEP"):
        step(models, "auto", target={"agreement": 1.5})
    with pytest.raises(ModelError, match="OUTPUTS_DIFFER"):
        Pipeline((CascadeStep(str(models / "small.onnx"), str(models / "wide.onnx"), "true"),)).infer(frame(2))


def test_a_calibrated_pipeline_survives_its_json(models: Path) -> None:
    learnt = Pipeline((step(models, "auto"),)).calibrate(frame(500))
    assert learnt.steps[0].threshold is not None
    assert Pipeline.from_dict(learnt.to_dict()) == learnt
    assert learnt.infer(frame(10, seed=1))["out.logits"].notna().all()


@pytest.mark.parametrize(("count", "trials"), [(0, 1), (0, 299), (3, 50), (49, 50), (50, 50), (480, 20_000)])
def test_bounds_are_those_of_clopper_and_pearson(count: int, trials: int) -> None:
    expected = stats.binomtest(count, trials).proportion_ci(0.95, "exact")
    assert interval(count, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert upper_bound(count, trials) == pytest.approx(
        stats.binomtest(count, trials, alternative="less").proportion_ci(0.95, "exact").high, abs=1e-9
    )
    assert lower_bound(count, trials) == pytest.approx(
        stats.binomtest(count, trials, alternative="greater").proportion_ci(0.95, "exact").low, abs=1e-9
    )


def population(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Return confidences, and whether the second model answers the same: less often where the first is unsure."""
    sure = rng.beta(4, 1, rows)
    return sure, rng.random(rows) > 0.4 * (1 - sure) ** 1.2


def test_over_200_seeds_the_target_holds_in_95_of_100_or_more() -> None:
    kept, answered = 0, []
    world_sure, world_agrees = population(np.random.default_rng(10_000), 1_000_000)
    order = np.argsort(world_sure)
    sure, wrong_below = world_sure[order], np.concatenate([[0], np.cumsum(~world_agrees[order])])
    for seed in range(200):
        learnt = learn_threshold(*population(np.random.default_rng(seed), 2000), TARGET)
        unsure = np.searchsorted(sure, learnt.threshold)  # rows below the threshold, which go on
        kept += float(wrong_below[-1] - wrong_below[unsure]) / len(sure) <= 1 - TARGET["agreement"]
        answered.append(1 - float(unsure) / len(sure))
    assert kept >= 190, f"the target held for {kept} of 200 seeds"
    assert np.mean(answered) > 0.3  # and it is of use


def test_a_small_or_hopeless_sample_sends_every_row_on() -> None:
    assert learn_threshold(np.ones(100), np.ones(100, bool), TARGET).threshold == np.inf
    assert learn_threshold(np.ones(5000), np.zeros(5000, bool), TARGET).answered == 0
    everything = learn_threshold(np.linspace(0, 1, 5000), np.ones(5000, bool), TARGET)
    assert everything.answered == 5000


def test_a_job_learns_once_and_tells_what_was_saved(models: Path, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "images", image_rows(0, 400, (2,)))
    cascade = {
        "cascade": {
            "first": str(models / "small.onnx"),
            "then": str(models / "large.onnx"),
            "target": {"agreement": 0.9},
            "softmax": True,
        }
    }
    config: PredictConfig = digits_job(
        tmp_path, "engine.name=local", "engine.batch_rows=16", pipeline__steps=[IMAGE_STEP, cascade]
    )
    lines: list[str] = []
    assert predict_table(config, progress=lines.append).rows == 400
    assert any("the first model answers where its confidence is" in line for line in lines)
    tasks = DeltaTable(tmp_path / "predictions_tasks").to_pyarrow_table().to_pylist()
    rows, then = (sum(task[name] for task in tasks) for name in ("cascade_rows", "cascade_rows_then"))
    assert f"cascade: the first model answered {rows - then} of 399 rows" in lines
    found = DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    answered = [row["metadata"]["models"][-1]["name"] for row in found if row["error"] is None]
    assert answered.count("large") == then
    write_deltalake(tmp_path / "images", image_rows(400, 20), mode="append")
    lines.clear()
    assert predict_table(config, progress=lines.append).rows == 20
    assert not any("where its confidence" in line for line in lines)  # it was kept
    assert {row["metadata"]["pipeline_version"] for row in found} == {
        row["metadata"]["pipeline_version"]
        for row in DeltaTable(tmp_path / "predictions").to_pyarrow_table().to_pylist()
    }
