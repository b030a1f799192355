"""Faults brought upon a sweep of fake cells from outside, and the account of its records after.

`tests/runner/test_faults.py` does each once; `scripts/inject_faults.py` does each many times.
"""
