"""Delta tables written by hand, with features that delta-rs does not write itself."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
LONG_ID = [{"name": "id", "type": "long", "nullable": True, "metadata": {}}]


def deletion_vector(rows: Sequence[int]) -> dict[str, Any]:
    """Return an inline deletion vector: one Roaring bitmap with one array container, in Z85."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    data = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    data += b"\0" * (-len(data) % 4)
    text = ""
    for (word,) in struct.iter_unpack(">I", data):
        text += "".join(Z85[word // 85**place % 85] for place in (4, 3, 2, 1, 0))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


def write_by_hand(
    folder: Path,
    rows: pa.Table,
    fields: Sequence[Mapping[str, Any]] = LONG_ID,
    features: Sequence[str] = (),
    configuration: Mapping[str, str] | None = None,
    deleted: Sequence[int] = (),
    group_rows: int = 1000,
) -> str:
    """Write a table of one file and one commit; return its location."""
    (folder / "_delta_log").mkdir(parents=True)
    pq.write_table(rows, folder / "file.parquet", row_group_size=group_rows)
    listed = {"readerFeatures": list(features), "writerFeatures": list(features)} if features else {}
    versions = (
        {"minReaderVersion": 3, "minWriterVersion": 7} if features else {"minReaderVersion": 2, "minWriterVersion": 5}
    )
    actions: list[dict[str, Any]] = [
        {"protocol": versions | listed},
        {
            "metaData": {
                "id": str(uuid.uuid4()),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": list(fields)}),
                "partitionColumns": [],
                "configuration": dict(configuration or {}),
                "createdTime": 1,
            }
        },
        {
            "add": {
                "path": "file.parquet",
                "partitionValues": {},
                "size": (folder / "file.parquet").stat().st_size,
                "modificationTime": 1,
                "dataChange": True,
                "stats": json.dumps({"numRecords": rows.num_rows}),
            }
            | ({"deletionVector": deletion_vector(deleted)} if deleted else {})
        },
    ]
    (folder / "_delta_log" / f"{0:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    return str(folder)
