"""One file a command of `python -m bench.report`: its arguments, and what it does."""
