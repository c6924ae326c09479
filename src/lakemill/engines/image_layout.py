"""How tables of encoded images are laid out on disk, on every engine.

Encoded images do not shrink, so they are stored as they are: no compression, no dictionary, no minimum and maximum. Row
groups are cut by bytes, because a reader holds a whole one in memory.
"""

from __future__ import annotations

ROW_GROUP_BYTES = 16 * 2**20
FILE_BYTES = 192 * 2**20
PIECE_BYTES = 8 * 2**20
FILE_COST_BYTES = 32 * 2**10  # opening a file takes as long as reading so many bytes
PIECES_PER_SLOT = 4


def piece_count(total_bytes: int, files: int, slots: int) -> int:
    """Return into how many pieces, and so files, to split images.

    Small sets get few pieces; middling ones four for each slot, so that none waits at the end; large ones as many as
    keep each file near ``FILE_BYTES``.

    Args:
        total_bytes: Of all images.
        files: How many images.
        slots: Pieces that are worked on at once.
    """
    cost = total_bytes + files * FILE_COST_BYTES
    return max(1, -(-total_bytes // FILE_BYTES), min(slots * PIECES_PER_SLOT, cost // PIECE_BYTES))
