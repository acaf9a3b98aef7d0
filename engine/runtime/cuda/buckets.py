"""The batch sizes that run on a device: few enough that each can keep its own memory, binding and CUDA graph."""

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def bucket(size: int) -> int:
    """Returns the smallest bucket with room for `size` rows or images; above the largest, the next multiple of it."""
    for limit in BUCKETS:
        if size <= limit:
            return limit
    return -(-size // BUCKETS[-1]) * BUCKETS[-1]
