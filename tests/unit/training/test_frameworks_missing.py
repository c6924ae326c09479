"""Without PyTorch and TensorFlow, training's own part works, and the error names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lakemill.training import make_spark_converter
from lakemill_udfs.errors import ModelError
from tests.unit.training.training_tables import write_examples


def test_importing_training_loads_no_framework_and_no_spark() -> None:
    script = "import lakemill.training, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "tensorflow", "pyspark", "mlflow"} & set(done.stdout.split())


@pytest.mark.parametrize(("module", "method"), [("torch", "make_torch_dataloader"), ("tensorflow", "make_tf_dataset")])
def test_a_missing_framework_is_named_with_its_extra(
    module: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    converter = make_spark_converter(write_examples(tmp_path / "examples", 10, 1))
    with (
        pytest.raises(ModelError, match=rf"^\[EXTRA_MISSING\].*lakemill\[{module}\]"),
        getattr(converter, method)(schema_fields=["number"]),
    ):
        pass
