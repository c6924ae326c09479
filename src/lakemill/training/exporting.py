"""A converter's rows in the formats of other loaders, written by these formats' own libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lakemill_udfs.errors import ConfigError, RowError, missing_extra
from lakemill_udfs.images.formats import identify
from lakemill_udfs.tensors.spec import TensorSpec

if TYPE_CHECKING:
    from lakemill.training.loader import Loader

Row = dict[str, Any]
Specs = Mapping[str, TensorSpec]
Writer = Callable[[Path, Iterator[Row], Specs, int], None]


def export_rows(loader: Loader, folder: Path, form: str, shard_rows: int) -> None:
    """Write each row of a loader once.

    Args:
        loader: Of arrays, one epoch, in the table's order.
        folder: Gets the files; it must be empty, or not be there.
        form: ``webdataset``, ``mds`` or ``datasets``.
        shard_rows: Rows of one file, where the format leaves that to its writer.

    Raises:
        ConfigError: ``TRAINING_EXPORT`` for another format, a folder that is in use, or a column that the format has no
            type for.
        ModelError: ``EXTRA_MISSING`` without the format's library.
    """
    if form not in WRITERS:
        raise ConfigError("TRAINING_EXPORT", f"a format is one of {', '.join(WRITERS)}; got {form!r}.")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            "TRAINING_EXPORT",
            f"the folder '{folder}' is not empty.",
            hint="give it one of its own.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    specs = loader.reading.fields.specs
    WRITERS[form](folder, _rows(loader), specs, shard_rows)


def _rows(loader: Loader) -> Iterator[Row]:
    for batch in loader:
        count = len(next(iter(batch.values())))
        for number in range(count):
            yield {name: array[number] for name, array in batch.items()}


def _webdataset(folder: Path, rows: Iterator[Row], specs: Specs, shard_rows: int) -> None:
    """One tar file for each so many rows; bytes and tensors are files in it, all else is one JSON a row."""
    try:
        from webdataset import ShardWriter
    except ImportError as error:
        raise missing_extra("webdataset", "webdataset") from error
    with ShardWriter(f"{folder}/%06d.tar", maxcount=shard_rows, verbose=0) as shards:
        for number, row in enumerate(rows):
            sample: Row = {"__key__": f"{number:09}"}
            columns: Row = {}
            for name, value in row.items():
                if isinstance(value, bytes):
                    sample[f"{name}.{_suffix(value)}"] = value
                elif specs[name].shape:
                    sample[f"{name}.npy"] = np.asarray(value)
                else:
                    columns[name] = value.item() if isinstance(value, np.generic) else value
            shards.write(sample | {"columns.json": columns})


def _suffix(content: bytes) -> str:
    try:
        found = identify(content)
    except RowError:
        return "bin"
    return {"JPEG": "jpg", "JPEG2000": "jp2"}.get(found, found.lower())


def _mds(folder: Path, rows: Iterator[Row], specs: Specs, shard_rows: int) -> None:
    """MosaicML's shards; their writer says how large they become."""
    try:
        from streaming import MDSWriter
    except ImportError as error:
        raise missing_extra("streaming", "mds") from error
    encodings = {name: _mds_encoding(spec) for name, spec in specs.items()}
    with MDSWriter(out=str(folder), columns=encodings, size_limit=2**26) as shards:
        for row in rows:
            shards.write({name: _mds_value(value) for name, value in row.items()})


def _mds_encoding(spec: TensorSpec) -> str:
    if spec.shape:
        known = "" if None in spec.shape else ":" + ",".join(map(str, spec.shape))
        return f"ndarray:{spec.dtype}{known}"
    return {"string": "str", "binary": "bytes", "bool": "uint8"}.get(spec.dtype, spec.dtype)


def _mds_value(value: Any) -> Any:
    return np.uint8(value) if isinstance(value, np.bool_) else value


def _datasets(folder: Path, rows: Iterator[Row], specs: Specs, shard_rows: int) -> None:
    """Arrow files that ``datasets.load_from_disk`` maps into memory."""
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "datasets") from error
    from datasets.arrow_writer import ArrowWriter

    features = datasets.Features({name: _feature(datasets, spec) for name, spec in specs.items()})
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with ArrowWriter(path=f"{scratch}/rows.arrow", features=features, writer_batch_size=shard_rows) as writer:
            for row in rows:
                writer.write(row)
            count, _ = writer.finalize()
        written = datasets.Dataset.from_file(f"{scratch}/rows.arrow")
        written.save_to_disk(str(folder), num_shards=max(1, -(-count // shard_rows)))


def _feature(datasets: Any, spec: TensorSpec) -> Any:
    rank = len(spec.shape)
    if rank == 0:
        return datasets.Value(spec.dtype)
    if rank == 1:
        return datasets.List(datasets.Value(spec.dtype), length=-1 if spec.shape[0] is None else spec.shape[0])
    if rank > 5 or None in spec.shape[1:]:
        raise ConfigError(
            "TRAINING_EXPORT",
            f"'{spec.name}' has shape {spec.shape}; datasets takes up to 5 dimensions, the first may be free.",
            hint="leave it out with schema_fields=[...].",
        )
    return getattr(datasets, f"Array{rank}D")(shape=spec.shape, dtype=spec.dtype)


WRITERS: dict[str, Writer] = {"webdataset": _webdataset, "mds": _mds, "datasets": _datasets}
