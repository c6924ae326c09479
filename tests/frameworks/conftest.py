"""What the tests with heavy frameworks share. They are a stage of their own: ``make test-frameworks``."""

from __future__ import annotations

import os

os.environ.setdefault("USE_TF", "0")  # transformers 4 imports TensorFlow where it is, and fails beside Keras 3
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
