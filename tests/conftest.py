"""Settings of every test: one thread, so that results do not depend on the machine."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Processes that share the tests have more threads than there are cores: none is to wait by turning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Whatever the test before left."""
    torch.set_num_threads(1)
