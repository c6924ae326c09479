"""A converter's batches, on real Delta: each row once, each column as declared, and from where it stopped."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakemill import ImageStep, Pipeline
from lakemill.training.converter import SparkDatasetConverter, make_spark_converter
from lakemill.training.transform_spec import TransformSpec
from lakemill_udfs.errors import LakemillError
from tests.lake import png
from tests.local.delta_tables import write_by_hand
from tests.unit.training.training_tables import examples, write_examples

PLAIN = ["number", "score"]


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_examples(tmp_path / "examples")


def numbers(converter: SparkDatasetConverter, **arguments: Any) -> list[int]:
    with converter.make_loader(**{"schema_fields": ["number"], **arguments}) as loader:
        return [number for batch in loader for number in batch["number"].tolist()]


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(LakemillError) as raised:
        call()
    return raised.value.code


@pytest.mark.parametrize("shuffle", [{}, {"shuffle_rows": True}, {"shuffling_queue_capacity": 50}])
@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_an_epoch_has_each_row_once(table: str, batch_size: int, shuffle: dict[str, Any]) -> None:
    converter = make_spark_converter(table)
    assert len(converter) == 100
    read = numbers(converter, batch_size=batch_size, **shuffle)
    assert sorted(read) == list(range(100))


def test_shards_have_each_row_once_in_equally_many_batches(table: str) -> None:
    converter = make_spark_converter(table)
    read, sizes = [], set()
    for shard in range(3):
        with converter.make_loader(8, schema_fields=["number"], cur_shard=shard, shard_count=3, seed=5) as loader:
            batches = list(loader)
        sizes.add((len(loader), len(batches)))
        read += [number for batch in batches for number in batch["number"].tolist()]
    assert sizes == {(5, 5)}
    assert sorted(read) == list(range(100))


def test_iterations_are_epochs_in_orders_of_their_own(table: str) -> None:
    with make_spark_converter(table).make_loader(
        10, schema_fields=["number"], shuffling_queue_capacity=100, seed=1
    ) as loader:
        epochs = [[number for batch in loader for number in batch["number"].tolist()] for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = numbers(make_spark_converter(table), batch_size=10, shuffling_queue_capacity=100, seed=1, num_epochs=3)
    assert again == [number for epoch in epochs for number in epoch]


def test_columns_are_tensors_of_their_own_kind(table: str) -> None:
    with make_spark_converter(table).make_loader(
        16, schema_fields=["number", "score", "label.*", "point", "volume"], shuffle_row_groups=False
    ) as loader:
        batch = next(iter(loader))
    kinds = {name: (array.dtype.name, array.shape) for name, array in batch.items()}
    assert kinds == {
        "number": ("int64", (16,)),
        "score": ("float32", (16,)),
        "label": ("object", (16,)),
        "label_index": ("int32", (16,)),
        "point": ("float32", (16, 2)),
        "volume": ("float32", (16, 2, 3, 4)),
    }
    assert batch["label"][4] == "class 1"
    assert batch["volume"][5, 1, 2, 3] == 5 + 23
    assert batch["point"][7].tolist() == [7, 0.5]


def test_every_plain_type_has_a_dtype_of_its_own(tmp_path: Path) -> None:
    kinds = [pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()]
    rows = pa.table({f"{kind}": pa.array([0, 1]).cast(kind) for kind in kinds})
    write_deltalake(tmp_path / "plain", rows)
    with make_spark_converter(str(tmp_path / "plain"), dtype=None).make_loader() as loader:
        (batch,) = list(loader)
    names = ["bool", "int8", "int16", "int32", "int64", "float32", "float64"]
    assert [array.dtype.name for array in batch.values()] == names
    assert [array.tolist() for array in batch.values()] == [[0, 1]] * 7


def test_a_fixed_tensor_is_a_view_of_what_was_read(table: str) -> None:
    """No copy, so no object a row: the array lies in Arrow's own memory."""
    with make_spark_converter(table).make_loader(16, schema_fields=["volume"], shuffle_row_groups=False) as loader:
        assert not next(iter(loader))["volume"].flags.owndata


@pytest.mark.parametrize(("dtype", "name"), [("float32", "float32"), ("float64", "float64"), (None, "float64")])
def test_dtype_is_that_of_float_columns(table: str, dtype: str | None, name: str) -> None:
    with make_spark_converter(table, dtype=dtype).make_loader(schema_fields=PLAIN) as loader:
        batch = next(iter(loader))
    assert (batch["score"].dtype.name, batch["number"].dtype.name) == (name, "int64")


def test_an_image_is_the_tensor_of_inference_bit_for_bit(table: str) -> None:
    step = ImageStep(column="content", mode="RGB", size=(11, 5), mean=(0.4,), std=(0.3,), output="image")
    with make_spark_converter(table, images=step).make_loader(9, schema_fields=["number", "image"]) as loader:
        trained = {n: image for batch in loader for n, image in zip(batch["number"], batch["image"], strict=True)}
    rows = DeltaTable(table).to_pyarrow_table()
    inferred = Pipeline((step,)).infer({"content": rows["content"].to_pylist()}, dataset=["out"])["out.image"]
    assert len(trained) == rows.num_rows
    for number, image in zip(rows["number"].to_pylist(), inferred, strict=True):
        assert trained[number].tobytes() == np.asarray(image, np.float32).tobytes()


def test_the_version_is_pinned(table: str) -> None:
    converter = make_spark_converter(table)
    write_deltalake(table, examples(100, 50), mode="append")
    assert sorted(numbers(converter)) == list(range(100))
    assert len(make_spark_converter(table)) == 150
    assert len(make_spark_converter(table, version=converter.table.version)) == 100


def test_where_and_filters_keep_rows(table: str) -> None:
    converter = make_spark_converter(table, where="label_index <> 0")
    assert sorted(numbers(converter)) == [number for number in range(100) if number % 3]
    assert sorted(numbers(converter, filters=[("number", "<", 10), ("label", "in", ["class 1"])])) == [1, 4, 7]
    assert sorted(numbers(converter, filters=[[("number", "=", 1)], [("number", ">=", 98)]])) == [1, 98]


def test_partitions_and_deleted_rows(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "parts", examples(0, 60), partition_by=["label"])
    with make_spark_converter(str(tmp_path / "parts")).make_loader(
        10, schema_fields=["number", "label"], filters=[("label", "=", "class 2")]
    ) as loader:
        rows = [row for batch in loader for row in zip(batch["number"].tolist(), batch["label"], strict=True)]
    assert sorted(rows) == [(number, "class 2") for number in range(2, 60, 3)]
    deleted = write_by_hand(
        tmp_path / "deleted",
        pa.table({"id": range(20)}),
        features=["deletionVectors"],
        deleted=[0, 7, 19],
        group_rows=5,
    )
    assert sorted(ids(deleted)) == [number for number in range(20) if number not in (0, 7, 19)]


def ids(table: str) -> list[int]:
    with make_spark_converter(table).make_loader(4) as loader:
        return [number for batch in loader for number in batch["id"].tolist()]


def test_mapped_columns_have_the_table_s_names(tmp_path: Path) -> None:
    field = {
        "name": "id",
        "type": "long",
        "nullable": True,
        "metadata": {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"},
    }
    table = write_by_hand(
        tmp_path / "mapped",
        pa.table({"col-1": range(5)}),
        [field],
        ["columnMapping"],
        {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"},
    )
    assert sorted(ids(table)) == list(range(5))


def test_an_iteration_goes_on_where_its_state_was_taken(table: str) -> None:
    arguments = {"schema_fields": ["number"], "shuffling_queue_capacity": 40, "num_epochs": 2, "seed": 3}
    converter = make_spark_converter(table)
    whole = numbers(converter, batch_size=7, **arguments)
    with converter.make_loader(7, **arguments) as loader:
        batches = iter(loader)
        before = [number for _ in range(18) for number in next(batches)["number"].tolist()]
        state = json.loads(json.dumps(loader.state_dict()))
    with converter.make_loader(7, **arguments) as loader:
        loader.load_state_dict(state)
        after = [number for batch in loader for number in batch["number"].tolist()]
    assert before + after == whole
    with converter.make_loader(8, **arguments) as loader:
        assert code_of(lambda: loader.load_state_dict(state)) == "TRAINING_STATE"


def double(frame: Any) -> Any:
    frame["twice"] = frame["score"] * 2
    frame["grid"] = [np.full((2, 2), number, np.float32) for number in frame["number"]]
    return frame


def double_arrays(arrays: dict[str, Any]) -> dict[str, Any]:
    return arrays | {"twice": arrays["score"] * 2, "grid": np.ones((len(arrays["score"]), 2, 2), np.float32)}


EDITS = [("twice", np.float32, (), False), ("grid", np.float32, (2, 2), False)]


@pytest.mark.parametrize("function", [double, double_arrays])
def test_a_transform_makes_columns(table: str, function: Callable[[Any], Any]) -> None:
    spec = TransformSpec(function, edit_fields=EDITS, selected_fields=["twice", "grid", "number"])
    with make_spark_converter(table).make_loader(8, schema_fields=PLAIN, transform_spec=spec) as loader:
        batch = next(iter(loader))
    assert list(batch) == ["twice", "grid", "number"]
    assert batch["grid"].shape == (8, 2, 2)
    assert batch["twice"].dtype == np.float32
    assert batch["twice"].tolist() == (batch["number"] / 4).tolist()


def test_a_transform_gets_bytes_and_decodes_them_itself(table: str) -> None:
    def sizes(frame: Any) -> Any:
        frame["size"] = frame["content"].map(len)
        return frame

    spec = TransformSpec(sizes, edit_fields=[("size", np.int64, (), False)], removed_fields=["content"])
    with make_spark_converter(table).make_loader(
        8, schema_fields=["number", "content"], transform_spec=spec, shuffle_row_groups=False
    ) as loader:
        batch = next(iter(loader))
    assert batch["size"].tolist() == [len(content) for content in examples(0, 8)["content"].to_pylist()]


def test_a_transform_that_loses_rows_is_an_error(table: str) -> None:
    spec = TransformSpec(lambda frame: frame[frame["number"] % 2 == 0])
    with make_spark_converter(table).make_loader(8, schema_fields=PLAIN, transform_spec=spec) as loader:
        assert code_of(lambda: list(loader)) == "TRAINING_TRANSFORM"


def test_rows_of_different_shape(tmp_path: Path) -> None:
    table = str(tmp_path / "ragged")
    write_deltalake(table, pa.table({"values": pa.array([[1.0], [2.0, 3.0], []], pa.list_(pa.float64()))}))
    converter = make_spark_converter(table)
    with converter.make_loader(3) as loader:
        assert code_of(lambda: list(loader)) == "TRAINING_RAGGED"
    with converter.make_loader(3, ragged="pad", shuffle_row_groups=False) as loader:
        (batch,) = list(loader)
    assert batch["values"].tolist() == [[1, 0], [2, 3], [0, 0]]
    with converter.make_loader(3, ragged="list", shuffle_row_groups=False) as loader:
        (batch,) = list(loader)
    assert [row.tolist() for row in batch["values"]] == [[1], [2, 3], []]


def test_a_row_without_a_tensor_is_named(tmp_path: Path) -> None:
    table = str(tmp_path / "nulls")
    write_deltalake(table, pa.table({"value": pa.array([1, None, 3])}))
    with (
        make_spark_converter(table).make_loader() as loader,
        pytest.raises(LakemillError, match="INPUT_NULL") as raised,
    ):
        list(loader)
    assert raised.value.code == "TRAINING_ROW"


def test_what_is_no_tensor_is_named_and_not_dropped(table: str) -> None:
    dated = examples(0, 3).append_column("day", pa.array([dt.date(2026, 1, 1)] * 3))
    write_deltalake(table + "_dated", dated)
    converter = make_spark_converter(table + "_dated")
    assert code_of(converter.make_loader) == "TRAINING_COLUMN"
    assert code_of(lambda: converter.make_loader(schema_fields=["nothing"])) == "TRAINING_FIELD"


def test_a_converter_survives_pickling_and_not_its_deletion(table: str) -> None:
    converter = pickle.loads(pickle.dumps(make_spark_converter(table)))  # noqa: S301 -- our own
    assert sorted(numbers(converter)) == list(range(100))
    assert len(converter.file_urls) == 3
    assert converter.dataset_size == sum(
        Path(url.removeprefix("file://")).stat().st_size for url in converter.file_urls
    )
    converter.delete()
    assert code_of(lambda: numbers(converter)) == "TRAINING_CLOSED"
    assert len(make_spark_converter(table)) == 100, "the table's own files are not deleted"


def test_a_version_that_was_cleaned_up_says_so(table: str) -> None:
    converter = make_spark_converter(table)
    for url in converter.file_urls:
        Path(url.removeprefix("file://")).unlink()
    assert code_of(lambda: numbers(converter)) == "SOURCE_VERSIONS_GONE"
    assert code_of(lambda: make_spark_converter(table, version=99)) == "TABLE_VERSION"
    assert code_of(lambda: make_spark_converter(table + "/none")) == "TABLE_NOT_FOUND"


def test_leaving_a_loader_ends_its_threads(table: str) -> None:
    with make_spark_converter(table).make_loader(2, schema_fields=PLAIN, num_epochs=None) as loader:
        for _ in zip(range(200), loader, strict=False):
            pass
        assert any(thread.name.startswith("lakemill-training") for thread in threading.enumerate())
    assert not any(thread.name.startswith("lakemill-training") for thread in threading.enumerate())
    assert code_of(lambda: iter(loader)) == "TRAINING_CLOSED"


def test_large_images_are_read_by_their_path_below_the_table_s_roots(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(number))
    rows = pa.table(
        {
            "path": [str(tmp_path / "photos" / f"{number}.png") for number in range(4)],
            "content": pa.nulls(4, pa.binary()),
        }
    )
    step = ImageStep(column="content", mode="L", size=(8, 8), dtype="uint8", layout="flat", output="pixels")
    roots = {"lakemill.roots": json.dumps([str(tmp_path / "photos")])}
    fields = [
        {"name": name, "type": kind, "nullable": True, "metadata": {}}
        for name, kind in (("path", "string"), ("content", "binary"))
    ]
    table = write_by_hand(tmp_path / "referenced", rows, fields, configuration=roots)
    with make_spark_converter(table, images=step).make_loader(
        schema_fields=["pixels"], shuffle_row_groups=False
    ) as loader:
        (batch,) = list(loader)
    assert batch["pixels"][:, 0].tolist() == [0, 20, 40, 60]
    write_deltalake(tmp_path / "elsewhere", rows)
    with (
        make_spark_converter(str(tmp_path / "elsewhere"), images=step).make_loader(schema_fields=["pixels"]) as loader,
        pytest.raises(LakemillError, match=r"TRAINING_ROW.*PATH_NOT_ALLOWED"),
    ):
        list(loader)
    roots = {"allowed_roots": [str(tmp_path / "photos")]}
    with make_spark_converter(str(tmp_path / "elsewhere"), images=step, **roots).make_loader(
        schema_fields=["pixels"], shuffle_row_groups=False
    ) as loader:
        assert next(iter(loader))["pixels"].tolist() == batch["pixels"].tolist()
    with (
        make_spark_converter(table, images=step, max_bytes=20).make_loader(schema_fields=["pixels"]) as loader,
        pytest.raises(LakemillError, match=r"TRAINING_ROW.*FILE_TOO_LARGE.*max_bytes is 20"),
    ):
        list(loader)


def test_bytes_without_a_step_are_bytes_and_never_null(table: str) -> None:
    with make_spark_converter(table).make_loader(8, schema_fields=["content"], shuffle_row_groups=False) as loader:
        assert next(iter(loader))["content"].tolist() == examples(0, 8)["content"].to_pylist()
    write_deltalake(table + "_null", pa.table({"content": pa.array([b"x", None])}))
    with make_spark_converter(table + "_null").make_loader() as loader:
        assert code_of(lambda: list(loader)) == "TRAINING_ROW"
