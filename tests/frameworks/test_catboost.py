"""CatBoost through pyfunc, categories by name included, as it is when called directly."""

from __future__ import annotations

from pathlib import Path

import catboost
import numpy as np
import pandas as pd

from lakemill import ModelStep, Pipeline

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": RNG.random(80), "b": RNG.random(80), "city": np.where(RNG.random(80) > 0.5, "Bonn", "Rome")})
LABELS = ((FRAME["a"] > 0.5) & (FRAME["city"] == "Bonn")).astype(int)


def test_a_classifier_with_a_category(tmp_path: Path) -> None:
    import mlflow.catboost
    from mlflow.models import infer_signature

    model = catboost.CatBoostClassifier(iterations=8, verbose=0, allow_writing_files=False, random_seed=0)
    model.fit(FRAME, LABELS, cat_features=["city"])
    expected = model.predict(FRAME)
    mlflow.catboost.save_model(
        model, tmp_path / "model", signature=infer_signature(FRAME, expected), pip_requirements=["catboost"]
    )
    pipeline = Pipeline((ModelStep(tmp_path / "model"),))
    assert pipeline.infer(FRAME[["city", "b", "a"]], dataset="out").iloc[:, 0].tolist() == expected.tolist()
    assert set(expected) == {0, 1}
