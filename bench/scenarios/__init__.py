"""What is done with a model while it is measured. One file a scenario, each with a `run`.

`run(context)` returns the parts of a record that the scenario takes, by their names
(`bench.store.record.Record`), and raises `Unsupported` where the cell cannot be.
"""
