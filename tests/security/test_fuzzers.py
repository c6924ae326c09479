"""The fuzzers of ``make fuzz`` for a moment, and what they found."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from lakemill import ConfigError, PredictConfig
from lakemill.config.base import read_yaml
from lakemill_udfs.masking import masked
from tests.fuzz.texts import kinds


@pytest.mark.parametrize("kind", ["models", "jobs", "paths"])
def test_mutants_end_with_a_result_or_a_coded_error(tmp_path: Path, kind: str) -> None:
    attempt = kinds(tmp_path)[kind]
    for number in range(300):
        attempt(random.Random(f"{kind} {number}"))  # noqa: S311 -- the same in every run


def test_yaml_that_grows_or_holds_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    started = time.monotonic()
    for text in ("a: &a [*a]", "\n".join(["a0: &a0 [x]", *levels]), "[" * 5000, "a: !!python/object/apply:os.abort []"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"^\[CONFIG_YAML\]"):
            read_yaml(file)
    assert time.monotonic() - started < 10
    file.write_text("a: &a [1, 2]\nb: *a\n", encoding="utf-8")
    assert read_yaml(file) == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".", "..", "a\n", "a\x00", "x.lock", "\u2024\u2024", " a", "a" * 129, ""]
)
def test_a_jobs_name_is_a_folders(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[CONFIG_INVALID\].*cannot name a job"):
        PredictConfig.load(None, (), source={"table": "a/b"}, output={"table": "a/c"}, pipeline={"uri": "m"}, name=name)


def test_masking_takes_a_time_that_grows_with_the_text_alone() -> None:
    """A name of 5,000 letters in a message took seconds."""
    started = time.monotonic()
    for part in ("x", "a://", "://:x", "token", "x:", "sig='"):
        masked(part * (40_000 // len(part)))  # a time that grew with the square took minutes
    assert time.monotonic() - started < 20
