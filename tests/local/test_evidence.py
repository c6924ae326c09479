"""Evidence and promotion: what the tables say of each model, and an alias that moves only if they support it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ConfigError, LakemillError, PredictConfig, predict_table
from lakemill.cli.app import run
from lakemill.pipelines.registry import alias_version, mlflow_at
from lakemill.predict.promotion import compare, promote
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
