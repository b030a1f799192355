"""Settings of every test: one thread, so that results do not depend on the machine."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Processes that share the tests have more threads than there are cores: none is to wait by turning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


# Files that take minutes come first: begun last, one of them would run alone.
HERE = Path(__file__).parent
LONG = (
    "runner/test_every_yaml.py", "test_scenarios.py", "models/test_registry.py",
    "runner/test_rwkv_package.py", "models/test_hybrid.py", "runner/test_run.py",
    "runner/test_pretrained.py", "runner/test_faults.py", "runner/test_backends.py",
    "runner/test_bad_input.py", "test_readme.py", "models/test_backends.py",
    "models/test_mamba3.py", "runner/test_execution.py", "runner/test_macos.py",
    "runner/test_harness.py", "runner/test_frontier.py", "models/test_checkpoints.py",
    "test_wheel.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by file; inside a file nothing changes."""
    place = {HERE / name: number for number, name in enumerate(LONG)}
    gone = [str(path) for path in place if not path.is_file()]
    assert not gone, f"renamed or removed: {gone}"
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    """What is imported stays: the cycle collector, whom libraries call, need not go through it."""
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Whatever the test before left."""
    torch.set_num_threads(1)
