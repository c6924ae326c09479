"""Everything that is wrong before a run is one error with a code, what was expected and got, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakemill import LakemillError, PredictConfig
from tests.both.on import On
from tests.lake import IMAGE_STEP, add_images, onnx_classifier, steps


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yield a lake that no test of this module changes."""
    folder = tmp_path_factory.mktemp("errors")
    add_images(folder / "images", 0, 3)
    onnx_classifier(folder / "model.onnx")
    write_deltalake(folder / "other", pa.table({"id": [0, 1, 2]}))
    (folder / "file").write_text("no folder")
    return folder


UNSIGNED = """
import mlflow


class Unsigned(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["number"]


mlflow.models.set_model(Unsigned())
"""


def unsigned_model(folder: Path) -> Path:
    """Write an MLflow model without a signature."""
    import mlflow.pyfunc

    (folder / "unsigned.py").write_text(UNSIGNED)
    if not (folder / "unsigned").exists():
        mlflow.pyfunc.save_model(
            str(folder / "unsigned"), python_model=str(folder / "unsigned.py"), pip_requirements=["mlflow"]
        )
    return folder / "unsigned"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("TABLE_NOT_FOUND", {"source__table": "{lake}/imagse"}, "there is no Delta table '{lake}/imagse'"),
    ("TABLE_VERSION", {"source__version": 77, "mode": "full"}, "cannot be read at version '77'"),
    ("COLUMN_MISSING", {"source__columns": ["lable"]}, "has no column 'lable'; it has: path"),
    ("COLUMN_MISSING", {"pipeline__steps": [{"image": {"column": "pixels", "size": [8, 8]}}]}, "reads column 'pixels'"),
    ("COLUMN_TYPE", {"pipeline__steps": [{"image": {"column": "label", "size": [8, 8]}}]}, "needs 'label' as binary"),
    ("WHERE_INVALID", {"source__where": "number >>> 3"}, "source.where does not fit the table"),
    ("WHERE_INVALID", {"source__where": "nmber > 3"}, "source.where does not fit the table"),
    ("WHERE_NOT_BY_ROW", {"source__where": "current_timestamp() > '2020-01-01'"}, "has current_timestamp():"),
    ("WHERE_NOT_BY_ROW", {"mode": "missing", "source__where": "number IN (SELECT 1)"}, "has a subquery:"),
    ("WHERE_NOT_BY_ROW", {"mode": "where", "source__where": "number > 1 -- all"}, "has a comment:"),
    (
        "MODEL_NOT_FOUND",
        {"pipeline__steps": [IMAGE_STEP, {"model": {"uri": "{lake}/modle.onnx"}}]},
        "neither a file nor a folder that a runtime here takes",
    ),
    (
        "MODEL_NOT_FOUND",
        {"pipeline__steps": None, "pipeline__uri": "models:/nobody/1", "registry": "sqlite:///{lake}/mlflow.db"},
        "there is no model",
    ),
    (
        "MODEL_INPUT_MISSING",
        {"pipeline__steps": [{"model": {"uri": "{lake}/model.onnx"}}]},
        "needs input 'pixels'; the table has: path",
    ),
    (
        "MODEL_OUTPUT_UNKNOWN",
        {"pipeline__steps": [{"model": {"uri": "{unsigned}", "inputs": {"number": "number"}}}]},
        "does not say its outputs",
    ),
    ("OUTPUT_NOT_OURS", {"output__table": "{lake}/other"}, "a table of something else"),
    ("OUTPUT_NOT_WRITABLE", {"output__table": "{lake}/file/predictions"}, "cannot be made"),
    ("PATH_INVALID", {"output__table": "{lake}/file"}, "is a file; a table"),
    ("PATH_INVALID", {"quarantine__table": "{lake}/file"}, "is a file; a table"),
    ("PATH_INVALID", {"output__checkpoint": "{lake}/file"}, "is a file; a table"),
    ("COLUMN_RESERVED", {"source__columns": ["out"]}, "column 'out' cannot be carried"),
]


@pytest.mark.parametrize(
    ("code", "change", "says"), WRONG, ids=[f"{code}-{next(reversed(change))}" for code, change, _ in WRONG]
)
def test_what_is_wrong_is_named(lake: Path, on: On, code: str, change: dict[str, Any], says: str) -> None:
    values: dict[str, Any] = {
        "source__table": f"{lake}/images",
        "pipeline__steps": steps(lake / "model.onnx"),
        "output__table": f"{lake}/never",
    }
    unsigned = str(unsigned_model(lake)) if code == "MODEL_OUTPUT_UNKNOWN" else ""
    with pytest.raises(LakemillError) as caught:
        on.predict(
            PredictConfig.load(None, (), name="job", **filled(values | change, lake=str(lake), unsigned=unsigned)),
        )
    assert caught.value.code == code
    assert says.format(lake=lake) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert not (lake / "never_checkpoint/job").exists()


def test_an_unknown_alias_is_told_from_an_unknown_model(lake: Path, on: On) -> None:
    import mlflow

    registry = f"sqlite:///{lake}/aliases.db"
    mlflow.MlflowClient(registry, registry).create_registered_model("digits")
    config = PredictConfig.load(
        None,
        (),
        registry=registry,
        source__table=f"{lake}/images",
        pipeline__uri="models:/digits@productoin",
        output__table=f"{lake}/never",
    )
    with pytest.raises(LakemillError, match=r"^\[MODEL_ALIAS_UNKNOWN\] model 'digits' has no alias 'productoin'"):
        on.predict(config)


def filled(value: Any, **names: str) -> Any:
    """Return a configuration with ``{lake}`` and such filled in."""
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, dict):
        return {key: filled(inner, **names) for key, inner in value.items()}
    return [filled(inner, **names) for inner in value] if isinstance(value, list) else value
