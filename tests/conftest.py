"""Settings of every test: one thread, so that results do not depend on the machine."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Processes that share the tests have more threads than there are cores: none is to wait by turning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

torch.set_num_threads(1)


# Files that take minutes come first: begun last, one of them would run alone.
LONG = (
    "test_every_yaml.py", "test_scenarios.py", "test_registry.py", "test_pretrained.py",
    "test_rwkv_package.py", "test_faults.py", "test_readme.py", "test_backends.py", "test_run.py",
    "test_harness.py", "test_mamba3.py", "test_hybrid.py", "test_checkpoints.py", "test_wheel.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by file; inside a file nothing changes."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Whatever the test before left."""
    torch.set_num_threads(1)
