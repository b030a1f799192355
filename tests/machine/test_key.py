"""The machine's key: the same after a reboot, another one on another machine."""

import platform
import re
import socket
from types import SimpleNamespace

import psutil
import pytest

from bench.constants import GIB
from bench.machine import key
from bench.machine.key import machine_key, memory_class

RESERVED = (0.01, 0.02, 0.03, 0.04)  # shares of the memory that kernels keep for themselves
SOLD = [base * 2**power for base in (1, 1.125, 1.25, 1.5, 1.75, 1.875) for power in range(11)]


def fresh() -> str:
    machine_key.cache_clear()
    try:
        return machine_key()
    finally:
        machine_key.cache_clear()


def test_a_reboot_a_new_kernel_and_another_host_name_keep_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fresh()
    assert re.fullmatch("[0-9a-f]{16}", before)
    total = psutil.virtual_memory().total
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    for name in ("node", "release", "version", "platform"):
        monkeypatch.setattr(platform, name, lambda *_, **__: "another")
    monkeypatch.setattr(psutil, "boot_time", lambda: 1.0)
    less = SimpleNamespace(total=int(total * 0.999), available=1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: less)
    assert fresh() == before


@pytest.mark.parametrize(
    "part", ["processor", "cores", "memory", "architecture", "machine id", "gpu"]
)
def test_each_part_makes_another_machine(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, parts = fresh(), key.machine_parts()
    monkeypatch.setattr(key, "machine_parts", lambda: {**parts, part: "another"})
    assert fresh() != before


@pytest.mark.parametrize("gib", SOLD)
def test_what_a_kernel_keeps_for_itself_changes_no_class(gib: float) -> None:
    assert len({memory_class(int(gib * GIB * (1 - share))) for share in RESERVED}) == 1


def test_twice_the_memory_is_another_class() -> None:
    assert memory_class(32 * GIB) - memory_class(16 * GIB) == 4
