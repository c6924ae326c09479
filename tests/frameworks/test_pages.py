"""Every code block of the page on deep learning runs, each in a process of its own, as a reader's script would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "deep-learning.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


NAMES = ["PyTorch", "Keras", "TensorFlow", "Hugging Face", "Stable Diffusion", "ONNX", "isolated"]


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_it_runs(block: str, tmp_path: Path) -> None:
    if "painter" in block:
        from tests.frameworks.tiny_transformers import stable_diffusion

        stable_diffusion().save_pretrained(tmp_path / "painter")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
