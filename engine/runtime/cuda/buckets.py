"""The sizes that a device computes: so few that each can have its memory, its binding and its CUDA graph."""

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def bucket(size: int) -> int:
    """Returns the least bucket that holds so many rows or images; above the last, the next multiple of it."""
    for limit in BUCKETS:
        if size <= limit:
            return limit
    return -(-size // BUCKETS[-1]) * BUCKETS[-1]
