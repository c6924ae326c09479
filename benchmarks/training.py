"""Images a second into PyTorch and TensorFlow, from the same photographs in a Delta table, a folder, and elsewhere.

.venv-frameworks/bin/python -m benchmarks.training [--images 1000] [--rounds 3]

Each way decodes, resizes to 224x224 and normalises into float32 (n, 3, 224, 224), in a process of its own, in turn;
of all rounds the best counts. petastorm and MosaicML Streaming run in environments of their own, which
``scripts/make_peers_venvs.sh`` makes. All but petastorm feed PyTorch or TensorFlow.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

BATCH, SIDE, MEAN, STD = 32, 224, 0.45, 0.225
RESULTS = Path("docs/benchmarks/training.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--petastorm", type=Path, default=Path(".venv-petastorm/bin/python"), help="its Python")
    parser.add_argument("--mds", type=Path, default=Path(".venv-mds/bin/python"), help="MosaicML Streaming's Python")
    parser.add_argument("--plot", action="store_true", help="only draw what was measured before")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FOLDER", "WORKERS"), help="what the others measure")
    arguments = parser.parse_args()
    if arguments.one:
        way, folder, workers = arguments.one
        print(json.dumps(measured(partial(WAYS[way], Path(folder), int(workers)), IMPORTED[way])))
        return
    if not arguments.plot:
        measure_all(arguments)
    plot()


def measure_all(arguments: argparse.Namespace) -> None:
    """Measure each way in turn, and keep the best round of each."""
    pythons = {"petastorm": arguments.petastorm, "mosaicml_streaming": arguments.mds}
    best: dict[tuple[str, int], dict[str, Any]] = {}
    if RESULTS.exists():  # of ways that are not measured now
        earlier = json.loads(RESULTS.read_text(encoding="utf-8"))
        best = {(one["way"], one["workers"]): one for one in earlier if one["way"] not in arguments.ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, arguments.images)
        if "mosaicml_streaming" in arguments.ways:
            code = "import sys, benchmarks.training as b; b.make_mds(b.Path(sys.argv[1]))"
            subprocess.run([arguments.mds, "-c", code, folder], check=True)
        for _ in range(arguments.rounds):
            for workers in arguments.workers:
                for way in arguments.ways:
                    command = [str(pythons.get(way, sys.executable)), __file__, "--one", way, str(folder), str(workers)]
                    environment = os.environ | {"PYTHONPATH": os.pathsep.join((".", "src", "udfs"))}
                    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                    if done.returncode:
                        print(f"{way}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                        continue
                    found = {"way": way, "workers": workers, **json.loads(done.stdout.splitlines()[-1])}
                    print(found, flush=True)
                    before = best.get((way, workers))
                    if before is None or found["images_a_second"] > before["images_a_second"]:
                        best[way, workers] = found
                    RESULTS.write_text(json.dumps(list(best.values()), indent=1) + "\n", encoding="utf-8")


def plot() -> None:
    """Draw images a second of each way."""
    import matplotlib.pyplot as plt

    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    ways = [way for way in WAYS if any(one["way"] == way for one in found)][::-1]
    for workers, offset, colour in ((1, 0.2, "#9ecae1"), (2, -0.2, "#3182bd")):
        rates = {one["way"]: one["images_a_second"] for one in found if one["workers"] == workers}
        places = [place + offset for place, way in enumerate(ways) if way in rates]
        bars = axes.barh(places, [rates[way] for way in ways if way in rates], 0.38, color=colour, label=f"{workers}")
        axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_yticks(range(len(ways)), [way.replace("_", " ") for way in ways])
    axes.set_xlabel("images a second: read, decoded, resized to 224x224, normalised")
    axes.legend(title="workers", loc="lower right")
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110)


def make_data(folder: Path, images: int) -> None:
    """Write photographs as files and as a Delta table."""
    import pyarrow as pa
    from deltalake import WriterProperties, write_deltalake

    from benchmarks.predict_data import write_photos

    write_photos(folder / "photos", images)
    files = sorted((folder / "photos").iterdir())
    rows = pa.table(
        {
            "label_index": pa.array(range(images), pa.int32()),
            "content": pa.array([file.read_bytes() for file in files], pa.binary()),
        }
    )
    as_ingested = WriterProperties(compression="UNCOMPRESSED", max_row_group_size=128)
    write_deltalake(folder / "table", rows, writer_properties=as_ingested)


def make_mds(folder: Path) -> None:
    """Write the same photographs as MosaicML's shards."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder / "mds"), columns={"content": "bytes"}) as shards:
        for file in sorted((folder / "photos").iterdir()):
            shards.write({"content": file.read_bytes()})


def measured(way: Callable[[], Iterator[Any]], modules: Sequence[str]) -> dict[str, float]:
    """Return seconds from imports to first batch, images a second of the epoch behind it, and peak memory in MiB."""
    for module in modules:
        importlib.import_module(module)
    started = time.perf_counter()
    batches = way()
    rows = len(next(batches))
    first = time.perf_counter()
    later, early = 0, resident_mib()
    for number, batch in enumerate(batches):
        later += len(batch)
        if number == 8:
            early = resident_mib()
    seconds = time.perf_counter() - first
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return {
        "images": rows + later,
        "first_batch_seconds": round(first - started, 3),
        "images_a_second": round(later / seconds, 1),
        "growth_mib": resident_mib() - early,
        "peak_mib": max(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024,
    }


def resident_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20


def prepared(content: bytes) -> Any:
    """Decode and prepare one image the plain way."""
    import io

    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(((pixels.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1))


def converter(folder: Path) -> Any:
    from lakemill import ImageStep
    from lakemill.training import make_spark_converter

    step = ImageStep(column="content", size=(SIDE, SIDE), mean=(MEAN,), std=(STD,), output="image")
    return make_spark_converter(str(folder / "table"), images=step)


def lakemill_torch(folder: Path, workers: int) -> Iterator[Any]:
    with converter(folder).make_torch_dataloader(BATCH, workers_count=workers) as loader:
        yield from (batch["image"] for batch in loader)


def lakemill_tensorflow(folder: Path, workers: int) -> Iterator[Any]:
    with converter(folder).make_tf_dataset(BATCH, workers_count=workers) as dataset:
        yield from (batch.image for batch in dataset)


def torch_folder(folder: Path, workers: int) -> Iterator[Any]:
    from torch.utils.data import DataLoader, Dataset

    class Photos(Dataset):  # type: ignore[type-arg]  # torch ships its types with itself
        files = sorted((folder / "photos").iterdir())

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> Any:
            return prepared(self.files[index].read_bytes())

    yield from DataLoader(Photos(), BATCH, shuffle=True, num_workers=workers)


def huggingface(folder: Path, workers: int) -> Iterator[Any]:
    from datasets import load_dataset
    from torch.utils.data import DataLoader

    files = sorted(map(str, (folder / "table").glob("*.parquet")))
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "huggingface"))
    images = rows.with_transform(lambda batch: {"image": [prepared(content) for content in batch["content"]]})
    loader: Iterable[Any] = DataLoader(images, BATCH, shuffle=True, num_workers=workers)
    yield from (batch["image"] for batch in loader)


def mosaicml_streaming(folder: Path, workers: int) -> Iterator[Any]:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    class Photos(StreamingDataset):  # type: ignore[misc]  # it ships no types
        def __getitem__(self, at: Any) -> Any:
            return prepared(super().__getitem__(at)["content"])

    photos = Photos(local=str(folder / "mds"), shuffle=True, batch_size=BATCH)
    yield from DataLoader(photos, BATCH, num_workers=workers)


def petastorm(folder: Path, workers: int) -> Iterator[Any]:
    """Without a framework behind it, which can only slow it down."""
    import numpy as np
    from petastorm import TransformSpec, make_batch_reader

    def decode(frame: Any) -> Any:
        frame["image"] = frame["content"].map(prepared)
        return frame[["image"]]

    spec = TransformSpec(decode, [("image", np.float32, (3, SIDE, SIDE), False)], selected_fields=["image"])
    urls = [file.as_uri() for file in sorted((folder / "table").glob("*.parquet"))]
    with make_batch_reader(urls, workers_count=workers, transform_spec=spec, num_epochs=1) as reader:
        yield from (batch.image for batch in reader)


WAYS = {
    "lakemill_torch": lakemill_torch,
    "lakemill_tensorflow": lakemill_tensorflow,
    "torch_folder": torch_folder,
    "huggingface": huggingface,
    "mosaicml_streaming": mosaicml_streaming,
    "petastorm": petastorm,
}

IMPORTED = {
    "lakemill_torch": ("torch", "lakemill.training"),
    "lakemill_tensorflow": ("tensorflow", "lakemill.training"),
    "torch_folder": ("torch.utils.data", "PIL.Image"),
    "huggingface": ("torch.utils.data", "datasets", "PIL.Image"),
    "mosaicml_streaming": ("torch.utils.data", "streaming", "PIL.Image"),
    "petastorm": ("petastorm", "PIL.Image"),
}
"""What each way imports, which is no part of what is measured."""

if __name__ == "__main__":
    main()
