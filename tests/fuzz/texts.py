"""Mutated model folders, jobs' YAML and rows' paths: each ends with a result or a coded error, and runs nothing."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lakemill.config.ingest import IngestConfig
from lakemill.config.predict import PredictConfig
from lakemill.config.transform import TransformConfig
from lakemill.pipelines.dry_run import resolve_all
from lakemill.pipelines.plan_report import PlanReport
from lakemill.pipelines.resolving import resolve_uri
from lakemill_udfs.errors import LakemillError, RowError
from lakemill_udfs.files import RowFiles
from tests.lake import onnx_classifier

ROOT = Path(__file__).parents[2]
PLANTED = "planted_by_fuzz"
"""A module that stands in every mutated folder; nothing may import it."""

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1e308,
        float("nan"),
        2**70,
        "",
        "a",
        "x" * 5000,
        "../outside",
        "/etc/passwd",
        "file:///etc/passwd",
    ),
    *(
        "subprocess:run",
        "os:abort",
        f"{PLANTED}:run",
        PLANTED,
        "..:a",
        "a:b:c",
        "model_0",
        "model_7",
        "s3://b?x=y/k",
        "\0",
        "\x1b[2J",
    ),
    *([], {}, [[]], {"a": {}}, [None], {"": ""}, ["a"] * 50, {"uri": "x"}, {"python": {"function": f"{PLANTED}:run"}}),
    *(
        "${HOME",
        "${LAKEMILL_FUZZ_UNSET}",
        "1 minute",
        "9999999999999999999",
        "2026-01-01",
        "\u2024",
        "[/x]",
        "!!python/object",
    ),
)
TOKENS = (
    *(
        "&a ",
        "*a",
        "!!python/object/apply:os.system [id]",
        "!!set ",
        "? ",
        "- ",
        ": ",
        "\t",
        "\0",
        "{",
        "}",
        "[",
        "]",
        "|",
        ">",
    ),
    *(
        "${X}",
        "'",
        '"',
        "#",
        "%YAML 9.9\n",
        "---\n",
        "...\n",
        "<<: *a",
        "\ufeff",
        "\ud7ff",
        "1e999",
        "0o777",
        "\r",
        "@",
        "`",
    ),
)
MODELS: tuple[dict[str, Any], ...] = (
    {
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.sklearn",
                "model_path": "model.pkl",
                "env": {"conda": "c.yaml"},
            }
        },
        "signature": {
            "inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}]',
            "outputs": '[{"type": "double", "name": "y"}]',
        },
        "model_uuid": "m",
    },
    *(
        {
            "flavors": {
                flavor: {"data": "data", "pickled_model": "model.pkl", "serialization_format": "skops"} | own,
                "python_function": {"loader_module": f"mlflow.{flavor}", "predict_fn": "predict", "data": "data"},
            },
            "metadata": {"lakemill_model": {"inputs": {"x": {"dtype": "float32"}}, "outputs": {}, "options": {}}},
            "signature": {"inputs": '[{"type": "double", "name": "x"}]', "outputs": "[]"},
        }
        for flavor, own in (
            ("sklearn", {"skops_trusted_types": []}),
            ("xgboost", {"data": "model.json", "model_class": "xgboost.sklearn.XGBModel", "model_format": "json"}),
            ("pytorch", {"model_data": "data"}),
            ("keras", {"data": "data/model.keras"}),
            ("tensorflow", {"saved_model_dir": "artifacts", "model_type": "tf2-module"}),
            ("transformers", {"task": "text-classification", "model_binary": "artifacts"}),
        )
    ),
    {"flavors": {"onnx": {"data": "model.onnx", "code": None}, "python_function": {"loader_module": "mlflow.onnx"}}},
    {
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.pyfunc.model",
                "python_model": "python_model.pkl",
                "artifacts": {"model_0": {"path": "artifacts/model.onnx", "uri": "x"}},
            }
        },
        "metadata": {
            "lakemill_pipeline": {
                "steps": [
                    {"image": {"column": "content", "mode": "L", "size": [8, 8], "layout": "flat", "output": "pixels"}},
                    {"model": {"uri": "model_0"}},
                    {
                        "python": {
                            "function": "own:run",
                            "inputs": {"x": "logits"},
                            "outputs": {"y": {"dtype": "float32"}},
                        }
                    },
                    {"format": {"input": "logits", "softmax": True, "labels": ["a", "b", "c"]}},
                ],
                "checks": [
                    {"name": "unsure", "expr": "out.probability < 0.5"},
                    {"name": "own", "function": "own:check"},
                ],
            }
        },
    },
)


def changed(chance: random.Random, value: Any) -> Any:
    """Return a structure with a few of its parts replaced, removed, doubled or renamed."""
    found = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = list(_places(found))
        if not places:
            break
        holder, key = chance.choice(places)
        what = chance.randrange(6)
        if what < 4:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        elif what == 4:
            del holder[key]
        elif isinstance(holder, dict):
            holder[chance.choice(("x", "", "uri", "code", "function", "labels", "path", "data"))] = holder.pop(key)
        else:
            holder.append(holder[key])
    return found


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def garbled(chance: random.Random, text: str) -> str:
    """Return a text with tokens put in, parts cut out, and sometimes its end gone."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(text) + 1)
        cut = chance.choice((0, 0, 1, 5, 30))
        text = text[:at] + chance.choice(TOKENS) * chance.choice((1, 1, 1, 40)) + text[at + cut :]
    return text[: chance.randrange(len(text) + 1)] if chance.random() < 0.1 else text


class ModelFolders:
    """Folders as a stranger's model may be: found and planned, never loaded.

    Args:
        folder: An empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder / "model", onnx_classifier(folder / "good.onnx").read_bytes()
        (folder / "outside").write_text("secret", encoding="utf-8")

    def __call__(self, chance: random.Random) -> None:
        """Make one and resolve it."""
        self._write(chance)
        with contextlib.suppress(LakemillError):
            resolve_uri(str(self.folder))
        if any(name.partition(".")[0] in (PLANTED, "own") for name in sys.modules):
            raise AssertionError("a module of the folder was imported")

    def _write(self, chance: random.Random) -> None:
        for name in ("", "artifacts", "code", f"code/{PLANTED}", "__pycache__"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for place in [*self.folder.rglob("odd*")]:
            place.unlink()
        data = bytearray(self.model)
        for _ in range(chance.choice((0, 0, 1, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        for name in ("model.onnx", "artifacts/model.onnx"):
            (self.folder / name).write_bytes(data)
        for name in ("model.pkl", "model.json", "artifacts/saved_model.pb", "artifacts/config.json"):
            (self.folder / name).write_bytes(chance.choice((b"", b"{}", b"cos\nabort\n(tR.", bytes(data[:50]))))
        for name in ("code/own.py", f"code/{PLANTED}/__init__.py", f"{PLANTED}.py"):
            (self.folder / name).write_text("def run(x): ...\ndef check(): ...\n", encoding="utf-8")
        described = yaml.safe_dump(changed(chance, chance.choice(MODELS)))
        if chance.random() < 0.2:
            described = garbled(chance, described)
        (self.folder / "MLmodel").write_text(described, encoding="utf-8", errors="replace")
        odd = self.folder / chance.choice(("odd", "artifacts/odd", "code/odd", "__pycache__/odd"))
        what = chance.randrange(8)
        if what == 0:
            odd.symlink_to(chance.choice(("../outside", "/etc", "odd", "MLmodel")))
        elif what == 1:
            os.mkfifo(odd)
        elif what == 2:
            odd.write_bytes(b"\0" * chance.randrange(100))


class Jobs:
    """Jobs' YAML, damaged in its text and in its structure: read and its pipeline resolved.

    Args:
        folder: An empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "job.yaml"
        files = {"predict_batch": PredictConfig, "predict_stream": PredictConfig, "ingest_images": IngestConfig}
        files["transform_images"] = TransformConfig
        self.seeds = [
            ((ROOT / "conf" / f"{name}.yaml").read_text(encoding="utf-8"), kind) for name, kind in files.items()
        ]
        steps = {"steps": MODELS[-1]["metadata"]["lakemill_pipeline"]["steps"][:1], "checks": []}
        job = {"source": {"table": "a/b"}, "output": {"table": "a/c"}, "pipeline": steps, "trust": {"modules": ["m"]}}
        self.seeds.append((yaml.safe_dump(job), PredictConfig))

    def __call__(self, chance: random.Random) -> None:
        """Read one."""
        text, kind = chance.choice(self.seeds)
        if chance.random() < 0.6:
            text = yaml.safe_dump(changed(chance, yaml.safe_load(text)))
        if chance.random() < 0.6:
            text = garbled(chance, text)
        self.file.write_bytes(text.encode("utf-8", "surrogatepass"))
        override = (f"{chance.choice(('source.table', 'a', 'pipeline.steps', '', '..'))}={chance.choice(VALUES)}",)
        try:
            config = kind.load(self.file, override if chance.random() < 0.2 else ())
            if isinstance(config, PredictConfig) and not config.pipeline.uri:
                resolve_all(config.pipeline.declared(), None, PlanReport(), config.trust)
        except LakemillError:
            return


class Paths:
    """Paths that rows name: what comes back is a file below the root, or the row's error.

    Args:
        folder: An empty one.
    """

    INSIDE = b"inside"

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        (self.root / "a").mkdir(parents=True)
        for name in ("f", "a/f", "a/%2e", "a/ \u2024"):
            (self.root / name).write_bytes(self.INSIDE)
        (folder / "secret").write_bytes(b"outside")
        (self.root / "link").symlink_to(folder / "secret")
        (self.root / "up").symlink_to(folder)
        os.mkfifo(self.root / "fifo")
        self.files = RowFiles((str(self.root),), 1000)
        self.parts = (
            *(
                "/",
                "//",
                "..",
                ".",
                "a",
                "f",
                "link",
                "up",
                "secret",
                "fifo",
                "%2e%2e",
                "%2f",
                "\0",
                "?x=y",
                "#f",
                "\u2024",
                " ",
            ),
            *(
                "file:",
                "file://",
                "file:///",
                "file+percent://",
                "s3://b",
                "http://h",
                "abfss://c@a",
                "user:pw@",
                "\\",
                "~",
                "x" * 300,
            ),
            *(str(self.root), str(folder), "/proc/self/environ", "/dev/zero", "/etc/passwd", "\ud800", "\n", "C:"),
        )

    def __call__(self, chance: random.Random) -> None:
        """Read one."""
        first = str(self.root) if chance.random() < 0.6 else ""
        parts = [chance.choice(self.parts) for _ in range(chance.randrange(1, 7))]
        try:
            data = self.files.read(chance.choice(("", "/")).join((first, *parts)))
        except RowError:
            return
        if data != self.INSIDE:
            raise AssertionError("a file outside the root was read")


def kinds(folder: Path) -> dict[str, Callable[[random.Random], None]]:
    """Return what is fuzzed besides images; each call makes and tries one mutant."""
    made: dict[str, Callable[[random.Random], None]] = {}
    for name, kind in (("models", ModelFolders), ("jobs", Jobs), ("paths", Paths)):
        (own := folder / name).mkdir()
        made[name] = kind(own)
    return made
