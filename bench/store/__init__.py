"""Immutable records of cells, one JSON file each, with their artefacts."""

from bench.store.parse import Problem
from bench.store.record import Record, new_id, validate
from bench.store.store import Store, StoreError, locate, plain, read_paths

__all__ = ["Problem", "Record", "Store", "StoreError", "locate", "new_id", "plain", "read_paths",
           "validate"]  # fmt: skip
