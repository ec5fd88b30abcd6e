"""Benchmarks: each prints and stores one row per case; baselines run side by side in one process, A B A B."""
