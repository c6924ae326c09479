"""PyTorch is fed with the table's rows: tensors of every kind, shards, and a network that learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lakemill import ImageStep
from lakemill.training import TransformSpec, make_spark_converter
from tests.unit.training.training_tables import write_examples

STEP = ImageStep(column="content", mode="L", size=(8, 8), layout="flat", output="pixels")


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_examples(tmp_path / "examples")


def test_a_batch_holds_tensors_of_the_arrays_dtypes(table: str) -> None:
    converter = make_spark_converter(table, images=STEP)
    fields = ["number", "score", "label", "label_index", "point", "volume", "pixels"]
    arguments = {"schema_fields": fields, "shuffle_rows": True, "seed": 4}
    with converter.make_torch_dataloader(16, **arguments) as loader, converter.make_loader(16, **arguments) as arrays:
        assert len(loader) == len(arrays) == 7
        for batch, expected in zip(loader, arrays, strict=True):
            assert list(batch) == fields
            assert batch["label"] == expected.pop("label").tolist()
            for name, array in expected.items():
                assert torch.equal(batch[name], torch.from_numpy(array.copy()))
                batch[name] += 1  # may be written to, and changes no other batch


def test_ranks_have_as_many_batches_and_each_row_once(table: str) -> None:
    batches = []
    for rank in range(2):
        with make_spark_converter(table).make_torch_dataloader(
            batch_size=7, cur_shard=rank, shard_count=2, schema_fields=["number"], shuffling_queue_capacity=30
        ) as loader:
            batches.append([batch["number"] for batch in loader])
    assert len(batches[0]) == len(batches[1]) == 8
    assert sorted(torch.cat(batches[0] + batches[1]).tolist()) == list(range(100))


def test_a_transform_s_arrays_become_tensors(table: str) -> None:
    def flipped(frame):  # noqa: ANN001, ANN202 -- petastorm's users write it so
        frame["pixels"] = [image[::-1].copy() for image in frame["pixels"]]
        return frame

    spec = TransformSpec(flipped, edit_fields=[("pixels", np.float32, (64,), False)], selected_fields=["pixels"])
    arguments = {"schema_fields": ["pixels"], "shuffle_row_groups": False}
    converter = make_spark_converter(table, images=STEP)
    with (
        converter.make_torch_dataloader(**arguments) as plain,
        converter.make_torch_dataloader(transform_spec=spec, **arguments) as turned,
    ):
        for one, other in zip(plain, turned, strict=True):
            assert torch.equal(one["pixels"].flip(1), other["pixels"])


def test_ragged_rows_are_a_list_of_tensors(tmp_path: Path) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(tmp_path / "r", pa.table({"values": pa.array([[1.0], [2.0, 3.0]], pa.list_(pa.float64()))}))
    with make_spark_converter(str(tmp_path / "r")).make_torch_dataloader(
        ragged="list", shuffle_row_groups=False
    ) as loader:
        (batch,) = list(loader)
    assert [row.tolist() for row in batch["values"]] == [[1], [2, 3]]


def test_a_network_learns_from_the_table(table: str) -> None:
    """The pictures' brightness goes with their number, so a linear model of the pixels finds it."""
    torch.manual_seed(0)
    model = nn.Linear(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    with make_spark_converter(table, images=STEP, where="number < 12").make_torch_dataloader(
        4, num_epochs=60, schema_fields=["pixels", "score"]
    ) as loader:
        for batch in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(batch["pixels"])[:, 0], batch["score"])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.05 * np.mean(losses[:3])
