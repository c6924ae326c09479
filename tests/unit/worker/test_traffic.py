"""Several models at once: splits stick, shadows fail no row, ensembles agree with their models, on every engine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lakemill import (
    ConfigError,
    EnsembleStep,
    ModelError,
    ModelStep,
    Pipeline,
    PredictConfig,
    ShadowStep,
    SplitStep,
    predict_table,
)
from lakemill.predict.redo import undo_run
from lakemill_udfs.steps.routing import place_rows
from tests.lake import FORMAT_STEP, IMAGE_STEP, digits_job, image_rows, onnx_classifier


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two models that differ, one of other classes, and one that is broken inside."""
    folder = tmp_path_factory.mktemp("models")
    onnx_classifier(folder / "one.onnx", bias=0.0)
    onnx_classifier(folder / "two.onnx", bias=5.0)
    onnx_classifier(folder / "wide.onnx", classes=4)
    return folder


def frame(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    pixels = rng.random((rows, 64), dtype=np.float32)
    return pd.DataFrame({"path": [f"row{number}" for number in range(rows)], "pixels": list(pixels)})


def split(models: Path, **options: Any) -> SplitStep:
    return SplitStep(str(models / "one.onnx"), {"newer": str(models / "two.onnx")}, **options)


def names(result: pd.DataFrame) -> list[str]:
    return [scored[0]["name"] for scored in result["metadata.models"]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**60), 2**60) | st.text(max_size=8), min_size=1), st.integers(1, 5), st.randoms())
def test_a_row_s_model_depends_on_its_key_alone(keys: list[Any], parts: int, random: Any) -> None:
    """Neither the order, nor the batch, nor the column's form matters."""
    step = SplitStep("a.onnx", {"b": "b.onnx", "c": "c.onnx"}, {"control": 0.5, "b": 0.2, "c": 0.3}, key="key")
    texts = [str(key) for key in keys]
    whole = dict(zip(texts, place_rows(step, {"key": pa.chunked_array([texts])}, len(texts)).tolist(), strict=True))
    random.shuffle(texts)
    for start in range(0, len(texts), parts):
        part = texts[start : start + parts]
        assert place_rows(step, {"key": np.array(part, object)}, len(part)).tolist() == [whole[key] for key in part]


def test_whole_numbers_go_the_same_way_in_every_type() -> None:
    step = SplitStep("a.onnx", {"b": "b.onnx"}, key="key")
    numbers = list(range(200))
    forms = [pa.array(numbers, kind) for kind in (pa.int16(), pa.int64(), pa.uint8())]
    forms += [np.array(numbers, np.int32), numbers, pa.array([str(number) for number in numbers])]
    places = [place_rows(step, {"key": form}, 200).tolist() for form in forms]
    assert all(one == places[0] for one in places)
    assert set(places[0]) == {0, 1}


@pytest.mark.parametrize("salt", ["", "spring", "autumn"])
def test_shares_are_within_binomial_bounds(salt: str) -> None:
    rows, share = 20_000, 0.1
    step = SplitStep("a.onnx", {"b": "b.onnx"}, {"control": 0.9, "b": share}, key="key", salt=salt)
    found = int(place_rows(step, {"key": pa.array(range(rows))}, rows).sum())
    assert abs(found - rows * share) < 5 * math.sqrt(rows * share * (1 - share))


def test_another_salt_splits_anew() -> None:
    one, two = (
        place_rows(SplitStep("a", {"b": "b"}, key="key", salt=salt), {"key": pa.array(range(2000))}, 2000)
        for salt in ("x", "y")
    )
    assert 800 < int((one == two).sum()) < 1200


def test_each_row_of_a_split_has_its_model_s_answer_and_says_whose(models: Path) -> None:
    data, every = frame(100), ("time", "out", "metadata.models", "metadata.last_model")
    result = Pipeline((split(models),)).infer(data, dataset=every)
    alone = {
        name: np.stack(Pipeline((ModelStep(str(models / f"{name}.onnx")),)).infer(data)["out.logits"])
        for name in ("one", "two")
    }
    assert set(names(result)) == {"one", "two"}
    for row, name in enumerate(names(result)):
        np.testing.assert_allclose(result["out.logits"][row], alone[name][row], rtol=1e-5)
        assert result["metadata.last_model"][row]["model_name"] == name


def test_a_key_s_value_or_range_says_the_model(models: Path) -> None:
    data = frame(6).assign(country=["DE", "FR", "DE", "US", None, "FR"], size=[1, 100, 150, 200, 5, 199])
    routed = Pipeline((split(models, by="key", key="country", routes={"newer": ["DE", "FR"]}),))
    assert names(routed.infer(data, dataset="metadata.models")) == ["two", "two", "two", "one", "one", "two"]
    ranged = Pipeline((split(models, by="key", key="size", routes={"newer": {"at_least": 100, "below": 200}}),))
    assert names(ranged.infer(data, dataset="metadata.models")) == ["one", "two", "two", "one", "one", "two"]


def test_the_time_of_each_model_is_there_and_metadata_is_asked_for_without_the_rest(models: Path) -> None:
    pipeline = Pipeline((split(models),))
    assert len(pipeline.infer(frame(50), dataset=["metadata.elapsed"])["metadata.elapsed"][0]) == 3
    for dataset in (["*", "metadata.elapsed"], ["*", "meta"]):
        with pytest.raises(ConfigError, match="DATASET_TESTING"):
            pipeline.infer(frame(5), dataset=dataset)


def test_what_does_not_go_together_is_said_before_anything_runs(models: Path) -> None:
    one, wide = str(models / "one.onnx"), str(models / "wide.onnx")
    with pytest.raises(ConfigError, match=r"SPLIT_WEIGHTS.*control 0.9, newer 0.2, sum 1.1"):
        split(models, weights={"control": 0.9, "newer": 0.2})
    with pytest.raises(ConfigError, match=r"SPLIT_WEIGHTS.*'older'"):
        split(models, weights={"control": 0.9, "older": 0.1})
    with pytest.raises(ConfigError, match="SPLIT_ROUTES"):
        split(models, by="key", key="country", routes={"older": ["DE"]})
    with pytest.raises(ModelError, match=r"OUTPUTS_DIFFER.*control: logits float32\[3\]; newer: logits float32\[4\]"):
        Pipeline((SplitStep(one, {"newer": wide}),)).infer(frame(2))
    with pytest.raises(ConfigError, match="COLUMN_MISSING"):
        Pipeline((split(models, key="customer"),)).infer(frame(2))
    with pytest.raises(ConfigError, match="ROUTE_KEY_TYPE"):
        Pipeline((split(models, key="price"),)).infer(frame(2).assign(price=[0.5, 1.5]))
    with pytest.raises(ModelError, match="ENSEMBLE_COMBINE"):
        Pipeline((EnsembleStep({"a": one, "b": one}, "vote"),)).infer(frame(2))


def test_a_shadow_s_challenger_goes_through_the_next_steps_by_itself(models: Path) -> None:
    labelled = PredictConfig.model_fields["pipeline"].annotation.model_validate(
        {
            "steps": [
                {"shadow": {"champion": str(models / "one.onnx"), "challengers": {"wide": str(models / "wide.onnx")}}},
                {"format": {"input": "logits", "softmax": True}},
            ]
        }
    )
    result = Pipeline(labelled.declared().steps).infer(frame(20))
    assert [name for name in result.columns if name.startswith("out")] == [
        "out.label",
        "out.probability",
        "out_wide.label",
        "out_wide.probability",
        "out_wide.error",
    ]
    alone = Pipeline((ModelStep(str(models / "wide.onnx")), *labelled.declared().steps[1:])).infer(frame(20))
    assert result["out_wide.label"].tolist() == alone["out.label"].tolist()
    assert result["out_wide.error"].isna().all()


def test_a_challenger_that_fails_fails_no_row(models: Path, tmp_path: Path) -> None:
    """Its rows say so in its own column; here its graph makes a shape that no batch has."""
    pipeline = Pipeline(
        (ShadowStep(str(models / "one.onnx"), {"odd": ModelStep(str(strict_model(tmp_path / "odd.onnx")))}),)
    )
    result = pipeline.infer(frame(8))
    assert result["out.logits"].notna().all()
    assert result["out_odd.logits"].isna().all()
    assert result["out_odd.error"].str.startswith("[").all()


def strict_model(path: Path) -> Path:
    """Write a model that says what ``onnx_classifier`` says of itself, and fails for every batch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["pixels", "shape"], ["logits"])],
        "strict",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([-1, 7], np.int64), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_ensembles(models: Path) -> None:
    data, members = frame(10), {"one": str(models / "one.onnx"), "two": str(models / "two.onnx")}
    one, two = (np.stack(Pipeline((ModelStep(uri),)).infer(data)["out.logits"]) for uri in members.values())
    mean = Pipeline((EnsembleStep(members),)).infer(data, dataset=["*", "metadata.elapsed", "metadata.models"])
    np.testing.assert_allclose(np.stack(mean["out.logits"]), (one + two) / 2, rtol=1e-5)
    assert [model["name"] for model in mean["metadata.models"][0]] == ["one", "two"]
    assert len(mean["metadata.elapsed"][0]) == 3
    each = Pipeline((EnsembleStep(members, "each"),)).infer(data)
    np.testing.assert_allclose(np.stack(each["out.two_logits"]), two, rtol=1e-5)
    own = EnsembleStep(members, "tests.unit.features:largest", {"largest": {"dtype": "float32"}})
    largest = Pipeline((own,)).infer(data)["out.largest"]
    np.testing.assert_allclose(largest, np.maximum(one, two).max(axis=1), rtol=1e-5)


def test_the_step_s_names_of_other_systems(models: Path) -> None:
    one, two = str(models / "one.onnx"), str(models / "two.onnx")
    plain = Pipeline((ModelStep(one),))
    assert plain.replace_with_random_split(0, [(3, one), (1, two)]).steps[0].shares == (0.75, 0.25)
    assert plain.replace_with_key_split(0, one, "country", {"DE": two}).steps[0].routes == {"challenger_1": ["DE"]}
    assert [*plain.replace_with_shadow_deploy(0, one, {"new": two}).steps[0].members] == ["champion", "new"]
    assert plain.replace_with_shadow_deploy(0, one, [two]).replace_with_model_step(0, two).steps == (ModelStep(two),)
    with pytest.raises(ConfigError, match="PIPELINE_STEP"):
        plain.replace_with_model_step(1, one)


def test_a_pipeline_of_several_models_survives_its_json_and_yaml(models: Path, tmp_path: Path) -> None:
    steps = (
        split(models, weights={"control": 0.5, "newer": 0.5}),
        ShadowStep("a.onnx", {"b": ModelStep("b.onnx", {"x": "pixels"})}),
        EnsembleStep({"a": "a.onnx", "b": "b.onnx"}, "each"),
    )
    for step in steps:
        pipeline = Pipeline((step,))
        assert Pipeline.from_dict(pipeline.to_dict()) == pipeline
        pipeline.to_yaml(tmp_path / "pipeline.yaml")
        assert Pipeline.from_yaml(tmp_path / "pipeline.yaml") == pipeline


# On the local engine, over real Delta -------------------------------------------------------------------------------


def job(lake: Path, *steps: dict[str, Any], **options: Any) -> PredictConfig:
    return digits_job(lake, "engine.name=local", pipeline__steps=[IMAGE_STEP, *steps, FORMAT_STEP], **options)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a folder with 40 images, of which one is broken, and two models."""
    write_deltalake(tmp_path / "images", image_rows(0, 40, (2,)), configuration={"delta.enableChangeDataFeed": "true"})
    onnx_classifier(tmp_path / "one.onnx")
    onnx_classifier(tmp_path / "two.onnx", bias=1.0)
    return tmp_path


def rows(lake: Path) -> list[dict[str, Any]]:
    found = DeltaTable(lake / "predictions").to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: str(row["path"]))


def test_a_job_splits_as_infer_does(lake: Path) -> None:
    step = {"split": {"control": str(lake / "one.onnx"), "challengers": {"newer": str(lake / "two.onnx")}}}
    config = job(lake, step)
    assert predict_table(config).rows_error == 1
    scored = {row["path"]: [model["name"] for model in row["metadata"]["models"]] for row in rows(lake)}
    assert scored.pop("img/0002.png") == []  # no model has seen it
    good = image_rows(0, 40).filter(pa.array([number != 2 for number in range(40)]))
    inferred = Pipeline(config.pipeline.declared().steps).infer(good.to_pandas(), dataset=["metadata.models"])
    assert list(scored.values()) == [[model["name"] for model in one] for one in inferred["metadata.models"]]
    assert {name for one in scored.values() for name in one} == {"one", "two"}


def test_a_shadow_added_to_a_job_gets_a_column_and_earlier_rows_keep_theirs(lake: Path) -> None:
    predict_table(job(lake, {"model": {"uri": str(lake / "one.onnx")}}))
    write_deltalake(lake / "images", image_rows(40, 10), mode="append")
    shadow = {"shadow": {"champion": str(lake / "one.onnx"), "challengers": {"newer": str(lake / "two.onnx")}}}
    result = predict_table(job(lake, shadow))
    found = rows(lake)
    assert (result.rows, len(found)) == (10, 50)
    assert all(row["out_newer"] is None for row in found[:40])
    assert all(row["out_newer"]["error"] is None and row["out_newer"]["label"] in "abc" for row in found[40:])
    assert [len(row["metadata"]["models"]) for row in found[40:]] == [2] * 10
    assert len(found[40]["metadata"]["elapsed_ns"]) == 4  # image, two models, format
    assert undo_run(job(lake, shadow), result.run_id) == 10
