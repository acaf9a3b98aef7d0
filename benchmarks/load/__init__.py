"""What the load commands (http_load, soak, arrivals) are made of: requests, callers, servers to compare with."""
