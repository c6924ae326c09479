"""Rows a second of tensors, where nothing is decoded: what a loader itself costs.

.venv-frameworks/bin/python -m benchmarks.training_tensors [--rounds 3]

Two tables: ``pixels``, uint8 (224, 224, 3) as bytes, and ``rows``, twenty floats and a label. Each way gives whole
epochs in batches of 32 and 1024 rows, in a process of its own, in turn; the better round counts. ``petastorm`` is its
reader alone, which gives row groups of whatever size, and no tensors. ``petastorm_torch`` is its loader for PyTorch,
and needs PyTorch in petastorm's environment, which ``scripts/make_peers_venvs.sh`` does not put there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import training

SHAPE, IMAGES, ROWS, WIDTH = (224, 224, 3), 1200, 200_000, 20
BATCHES = {"pixels": 32, "rows": 1024}
RESULTS = Path("docs/benchmarks/training_tensors.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--petastorm", type=Path, default=Path(".venv-petastorm/bin/python"), help="its Python")
    parser.add_argument("--mds", type=Path, default=Path(".venv-mds/bin/python"), help="MosaicML Streaming's Python")
    parser.add_argument("--one", nargs=4, metavar=("WAY", "TABLE", "FOLDER", "WORKERS"), help="what the others measure")
    arguments = parser.parse_args()
    if arguments.one:
        way, table, folder, workers = arguments.one
        print(json.dumps(training.measured(partial(WAYS[way], Path(folder), table, int(workers)), IMPORTED[way])))
        return
    pythons = dict.fromkeys(("petastorm", "petastorm_torch"), arguments.petastorm)
    pythons["mosaicml_streaming"] = arguments.mds
    best: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        code = "import sys, benchmarks.training_tensors as b; b.make_mds(b.Path(sys.argv[1]))"
        subprocess.run([arguments.mds, "-c", code, folder], check=True)
        for _ in range(arguments.rounds):
            for table in BATCHES:
                for way in WAYS:
                    command = [str(pythons.get(way, sys.executable)), "-m", "benchmarks.training_tensors"]
                    command += ["--one", way, table, str(folder), str(arguments.workers)]
                    environment = os.environ | {"PYTHONPATH": os.pathsep.join((".", "src", "udfs"))}
                    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                    if done.returncode:
                        print(f"{way}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                        continue
                    measured = json.loads(done.stdout.splitlines()[-1])
                    measured["rows_a_second"] = measured.pop("images_a_second")
                    found = {"way": way, "table": table, "workers": arguments.workers, **measured}
                    print(found, flush=True)
                    before = best.get((way, table))
                    if before is None or found["rows_a_second"] > before["rows_a_second"]:
                        best[way, table] = found
                    RESULTS.write_text(json.dumps(list(best.values()), indent=1) + "\n", encoding="utf-8")
    plot()


def plot() -> None:
    """Draw rows a second of each way, a picture for each table."""
    import matplotlib.pyplot as plt

    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure, places = plt.subplots(1, len(BATCHES), figsize=(9, 2.6), layout="constrained")
    for axes, table in zip(places, BATCHES, strict=True):
        rates = {one["way"].replace("_", " "): one["rows_a_second"] for one in found if one["table"] == table}
        bars = axes.barh(list(rates)[::-1], list(rates.values())[::-1], color="#3182bd")
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.set_xlabel(f"{table}: rows a second")
        axes.margins(x=0.25)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110)


def make_data(folder: Path) -> None:
    """Write both tables, in row groups of some MiB, as petastorm's users have them."""
    import numpy as np
    import pyarrow as pa
    from deltalake import WriterProperties, write_deltalake

    from lakemill_udfs.tensors.columns import write_tensor
    from lakemill_udfs.tensors.spec import TensorSpec

    random, spec = np.random.default_rng(0), TensorSpec("pixels", "uint8", SHAPE)
    pixels = write_tensor(random.integers(0, 255, (IMAGES, *SHAPE), np.uint8), spec)
    schema = pa.schema([pa.field("pixels", spec.arrow_type(), metadata=spec.metadata())])
    plain = WriterProperties(compression="UNCOMPRESSED", max_row_group_size=64)
    write_deltalake(folder / "pixels", pa.table([pixels], schema=schema), writer_properties=plain)
    numbers = random.random((ROWS, WIDTH), dtype=np.float32)
    values = pa.FixedSizeListArray.from_arrays(numbers.ravel(), WIDTH).cast(pa.list_(pa.float32()))
    rows = pa.table({"values": values, "label": pa.array(np.arange(ROWS) % 10, pa.int64())})
    small = WriterProperties(compression="SNAPPY", max_row_group_size=20_000)
    write_deltalake(folder / "rows", rows, writer_properties=small)


def make_mds(folder: Path) -> None:
    """Write both tables as MosaicML's shards."""
    import pyarrow.parquet as pq
    from streaming import MDSWriter

    columns = {"pixels": {"pixels": "bytes"}, "rows": {"values": f"ndarray:float32:{WIDTH}", "label": "int"}}
    for table, kinds in columns.items():
        with MDSWriter(out=str(folder / "mds" / table), columns=kinds) as shards:
            for file in sorted((folder / table).glob("*.parquet")):
                for row in pq.read_table(file).to_pylist():
                    shards.write({name: _as_array(value) for name, value in row.items()})


def _as_array(value: Any) -> Any:
    import numpy as np

    return np.asarray(value, np.float32) if isinstance(value, list) else value


def _reshaped(row: dict[str, Any]) -> Any:
    """Return a row's tensor, the plain way."""
    import numpy as np

    return np.frombuffer(row["pixels"], np.uint8).reshape(SHAPE).copy() if "pixels" in row else row["values"]


def lakemill(folder: Path, table: str, workers: int) -> Iterator[Any]:
    from lakemill.training import make_spark_converter

    name = "pixels" if table == "pixels" else "values"
    with make_spark_converter(str(folder / table)).make_torch_dataloader(
        BATCHES[table], workers_count=workers
    ) as loader:
        yield from (batch[name] for batch in loader)


def huggingface(folder: Path, table: str, workers: int) -> Iterator[Any]:
    import numpy as np
    from datasets import load_dataset
    from torch.utils.data import DataLoader

    files = sorted(map(str, (folder / table).glob("*.parquet")))
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "huggingface"))
    if table == "pixels":
        rows = rows.with_transform(
            lambda batch: {"x": [np.frombuffer(one, np.uint8).reshape(SHAPE).copy() for one in batch["pixels"]]}
        )
    else:
        rows = rows.with_format("torch").rename_column("values", "x")
    loader: Any = DataLoader(rows, BATCHES[table], shuffle=True, num_workers=workers)
    yield from (batch["x"] for batch in loader)


def mosaicml_streaming(folder: Path, table: str, workers: int) -> Iterator[Any]:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    class Rows(StreamingDataset):  # type: ignore[misc]  # it ships no types
        def __getitem__(self, at: Any) -> Any:
            return _reshaped(super().__getitem__(at))

    rows = Rows(local=str(folder / "mds" / table), shuffle=True, batch_size=BATCHES[table])
    yield from DataLoader(rows, BATCHES[table], num_workers=workers)


def petastorm(folder: Path, table: str, workers: int) -> Iterator[Any]:
    """Its reader alone: arrays of whole row groups, as they are stored, neither batches nor tensors."""
    with _petastorm_reader(folder, table, workers) as reader:
        yield from (batch.x if table == "pixels" else batch.values for batch in reader)


def petastorm_torch(folder: Path, table: str, workers: int) -> Iterator[Any]:
    """As its converter's ``make_torch_dataloader`` makes it."""
    from petastorm.pytorch import DataLoader

    name = "x" if table == "pixels" else "values"
    with DataLoader(_petastorm_reader(folder, table, workers), BATCHES[table]) as loader:
        yield from (batch[name] for batch in loader)


def _petastorm_reader(folder: Path, table: str, workers: int) -> Any:
    import numpy as np
    from petastorm import TransformSpec, make_batch_reader

    def reshape(frame: Any) -> Any:
        frame["x"] = frame["pixels"].map(lambda one: np.frombuffer(one, np.uint8).reshape(SHAPE))
        return frame[["x"]]

    spec = TransformSpec(reshape, [("x", np.uint8, SHAPE, False)], selected_fields=["x"])
    urls = [file.as_uri() for file in sorted((folder / table).glob("*.parquet"))]
    chosen = {"transform_spec": spec} if table == "pixels" else {}
    return make_batch_reader(urls, workers_count=workers, num_epochs=1, **chosen)


WAYS = {
    "lakemill": lakemill,
    "huggingface": huggingface,
    "mosaicml_streaming": mosaicml_streaming,
    "petastorm_torch": petastorm_torch,
    "petastorm": petastorm,
}

IMPORTED = {
    "lakemill": ("torch", "lakemill.training"),
    "huggingface": ("torch.utils.data", "datasets"),
    "mosaicml_streaming": ("torch.utils.data", "streaming"),
    "petastorm_torch": ("petastorm.pytorch",),
    "petastorm": ("petastorm",),
}
"""What each way imports, which is no part of what is measured."""

if __name__ == "__main__":
    main()
