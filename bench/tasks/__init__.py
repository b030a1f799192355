"""Shared tasks: data, metric, and how each protocol of `bench.protocol` is scored on it."""
