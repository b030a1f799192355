"""SQL over the store, through DuckDB: `connect(["results"]).sql("select …")`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.store.store import StoreError
from bench.store.tables import SHORT, read_table

if TYPE_CHECKING:
    import duckdb

INSTALL = "pip install 'archbench[sql]'"


def connect(paths: Iterable[str | os.PathLike[str]]) -> "duckdb.DuckDBPyConnection":
    """A connection of its own in memory, with the view `records`: one row a record.

    Columns have the names of the index ("cell.model", "figures.train_per_s", …) and, where no
    column bears them, the short ones of `bench.store.tables.SHORT` (model, task, quality, …).
    StoreError where a path does not exist or DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise StoreError(f"SQL needs the package duckdb; install it by {INSTALL}") from None
    table, _ = read_table(map(Path, paths))
    names = table.column_names
    short = [
        f'"{name}" AS "{alias}"'
        for alias, name in SHORT.items()
        if name in names and alias not in names
    ]
    connection = duckdb.connect(":memory:")
    connection.register("index_rows", table)
    connection.execute(f"CREATE VIEW records AS SELECT {', '.join(['*', *short])} FROM index_rows")
    return connection
