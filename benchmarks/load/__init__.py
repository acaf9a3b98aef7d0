"""Shared parts of http_load and soak: requests, callers, reference servers."""
