"""Images a second into PyTorch and TensorFlow, from the same photographs in a Delta table, a folder, and elsewhere.

.venv-frameworks/bin/python -m benchmarks.training [--images 1000] [--petastorm /path/to/its/python]

Each way decodes, resizes to 224x224 and normalises into float32 (n, 3, 224, 224), in a process of its own. A
petastorm environment is Python 3.11 with petastorm, pyarrow 14.0.2, numpy 1.26.4, pillow and setuptools below 81.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

BATCH, SIDE, MEAN, STD = 32, 224, 0.45, 0.225
RESULTS = Path("docs/benchmarks/training.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--petastorm", type=Path, help="Python of an environment that has petastorm")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FOLDER", "WORKERS"), help="what the others measure")
    arguments = parser.parse_args()
    if arguments.one:
        way, folder, workers = arguments.one
        print(json.dumps(measured(WAYS[way], Path(folder), int(workers))))
        return
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, arguments.images)
        for workers in arguments.workers:
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.training", "--one", way, str(folder), str(workers)]
                if way == "petastorm":
                    if arguments.petastorm is None:
                        continue
                    command = [str(arguments.petastorm), __file__, *command[3:]]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{way}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                    continue
                found.append({"way": way, "workers": workers, **json.loads(done.stdout.splitlines()[-1])})
                print(found[-1], flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


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


def measured(way: Callable[[Path, int], Iterator[Any]], folder: Path, workers: int) -> dict[str, float]:
    """Return seconds from imports to first batch, images a second of the epoch behind it, and peak memory in MiB."""
    for module in IMPORTED[way.__name__]:
        importlib.import_module(module)
    started = time.perf_counter()
    batches = way(folder, workers)
    rows = len(next(batches))
    first = time.perf_counter()
    later = sum(map(len, batches))
    seconds = time.perf_counter() - first
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return {
        "images": rows + later,
        "first_batch_seconds": round(first - started, 3),
        "images_a_second": round(later / seconds, 1),
        "peak_mib": max(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024,
    }


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
    "petastorm": petastorm,
}

IMPORTED = {
    "lakemill_torch": ("torch", "lakemill.training"),
    "lakemill_tensorflow": ("tensorflow", "lakemill.training"),
    "torch_folder": ("torch.utils.data", "PIL.Image"),
    "huggingface": ("torch.utils.data", "datasets", "PIL.Image"),
    "petastorm": ("petastorm", "PIL.Image"),
}
"""What each way imports, which is no part of what is measured."""

if __name__ == "__main__":
    main()
