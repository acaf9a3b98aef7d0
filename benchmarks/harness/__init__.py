"""The framework for comparing implementations: competitors, workloads, timing, and saved results."""
