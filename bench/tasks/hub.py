"""Data sets of the Hugging Face hub; free of torch, since shards are prepared without it."""

from typing import Any


def load_hub(hub: str, config: str | None) -> Any:
    """`datasets.load_dataset`, with its many ways to fail told in one sentence."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"task.hub={hub} needs the package `datasets`: pip install 'archbench[hub]'"
        ) from error
    try:
        found = datasets.load_dataset(hub, config)
    except Exception as error:  # the library and its storage back-ends share no base class
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"task.hub={hub} (task.hub_config={config}) could not be loaded "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}); allowed is "
            f"a data set of the Hugging Face hub that can be reached, or a local folder of one"
        ) from error
    if not any(len(rows) for rows in found.values()):
        raise ValueError(f"task.hub={hub} is empty; allowed is a data set with rows")
    return found
