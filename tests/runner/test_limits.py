"""Limits on memory: what is free, and how a limit names itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.constants import GIB
from bench.machine import cgroup
from bench.process import limits
from bench.process.limits import Limit
from bench.process.outcome import Death

MIB = 1 << 20


def test_the_tightest_of_the_machine_and_its_groups_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgroup, "memory_left", lambda: 70 * MIB)
    assert limits.free_bytes() == 70 * MIB
    monkeypatch.setattr(cgroup, "memory_left", lambda: None)
    assert limits.free_bytes() > 70 * MIB


def test_only_what_ran_out_of_memory_names_the_limit() -> None:
    limit = Limit(GIB, "memory_limit_gib=1", "memory_limit_gib=1 of the GPU")
    assert limit.name("KeyError: 'x'") == "KeyError: 'x'"
    assert limit.name(None) is None
    host, card = "out of memory: MemoryError", "out of memory: OutOfMemoryError: CUDA out of memory"
    assert limit.name(host) == "out of memory: needed more than memory_limit_gib=1; MemoryError"
    assert "needed more than memory_limit_gib=1 of the GPU; Out" in str(limit.name(card))
    free = Limit(None, "90% of the memory that was free (7.2 GiB)")
    assert free.name(card) == card, "the host's memory is not to blame"


@pytest.mark.parametrize(
    ("code", "log", "kernel", "words"),
    [
        (-9, "", True, "out of memory: the process was ended by SIGKILL, by the kernel"),
        (-9, "", False, "killed: the process was ended by SIGKILL, as happens when memory runs"),
        (-6, "std::bad_alloc", False, "needed more than memory_limit_gib=2; the process was ended"),
        (-11, "Segmentation fault", True, "killed: the process was ended by SIGSEGV"),
        (3, "", True, "crash: the process exited with code 3"),
        (-35, "", False, "killed: the process was ended by signal 35"),  # a real-time signal
    ],
)
def test_why_a_process_died(code: int, log: str, kernel: bool, words: str) -> None:
    assert words in Death(code, log, kernel, served=False).reason(2.0)


def test_the_limit_on_a_gpu_is_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = type("Card", (), {"total_memory": 80 * GIB})
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(limits, "_limit_host", lambda gib: Limit(7 * GIB, "the host's"))
    monkeypatch.setattr(limits, "OOM_SCORE", Path(os.devnull))
    some = limits.limit_memory("cuda", 20.0)
    assert some == Limit(20 * GIB, "the host's", "memory_limit_gib=20 of the GPU")
    assert limits.limit_memory("cuda", 100.0) == Limit(None, "the host's"), "more than it has"
    assert limits.limit_memory("cuda", None) == Limit(None, "the host's")
    assert shares == [0.25]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_room_is_what_is_free_and_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(limits, "free_bytes", lambda: 70 * MIB)
    monkeypatch.setattr(limits, "data_bytes", lambda: 30 * MIB)
    for allowed, room in ((resource.RLIM_INFINITY, 70), (200 * MIB, 70), (40 * MIB, 10), (MIB, 0)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert limits.room_bytes() == room * MIB


CODE = """
import torch
from bench.process import limits
limits.SHARE = {share}
limit = limits.limit_memory("cpu", {gib})
held = []
try:
    while True:
        held.append(torch.ones(1 << 20))  # 4 MiB, written to
except RuntimeError as error:
    assert "can't allocate memory" in str(error), error
    from bench.meters.process import resident_bytes
    print(resident_bytes() / limit.bytes, limit.words)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(
    ("share", "gib", "words"),
    [(0.9, "0.8", "memory_limit_gib=0.8"), (0.02, "None", "2% of the memory that was free (0.")],
)
def test_a_process_stops_at_its_limit(share: float, gib: str, words: str) -> None:
    code = CODE.format(share=share, gib=gib)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ratio, named = done.stdout.split(maxsplit=1)
    assert float(ratio) == pytest.approx(1.0, abs=0.05)
    assert named.startswith(words)
