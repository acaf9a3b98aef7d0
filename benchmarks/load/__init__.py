"""Shared parts of the load commands (http_load, soak, arrivals): requests, callers, reference servers."""
