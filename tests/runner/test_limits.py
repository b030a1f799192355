"""Limits on memory: what is free in control groups, and how a limit names itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import limits
from bench.limits import GIB, Limit
from bench.outcome import Death

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "own")
    return tmp_path


def group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def test_the_tightest_of_nested_groups_counts(machine: Path) -> None:
    """Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory interface files."""
    (machine / "own").write_text("0::/jobs/mine\n")
    top = machine / "cgroup"  # the root has no memory.max
    group(top / "jobs", {"memory.max": 300 * MIB, "memory.current": 250 * MIB,
                         "memory.stat": f"anon 5\ninactive_file {20 * MIB}"})  # fmt: skip
    group(top / "jobs" / "mine",
          {"memory.max": "max", "memory.current": 1, "memory.stat": "inactive_file 0"})  # fmt: skip
    assert limits._groups() == [70 * MIB]
    assert limits.free_bytes() == 70 * MIB


def test_groups_of_version_1(machine: Path) -> None:
    (machine / "own").write_text("9:name=systemd:/\n4:cpu,memory:/a\n1:cpu:/a\n0::/\n")
    top = machine / "cgroup" / "memory"
    stat = {"memory.stat": "total_inactive_file 0"}
    unlimited = (1 << 63) - 4096
    group(top, {"memory.limit_in_bytes": unlimited, "memory.usage_in_bytes": 5, **stat})
    group(top / "a", {"memory.limit_in_bytes": 8 * MIB, "memory.usage_in_bytes": 9 * MIB, **stat})
    assert limits._groups() == [0]


def test_a_system_without_groups(machine: Path) -> None:
    assert limits._groups() == []


def test_only_what_ran_out_of_memory_names_the_limit() -> None:
    limit = Limit(GIB, "memory_limit_gib=1", "memory_limit_gib=1 of the GPU")
    assert limit.name("KeyError: 'x'") == "KeyError: 'x'"
    assert limit.name(None) is None
    host, card = "out of memory: MemoryError", "out of memory: OutOfMemoryError: CUDA out of memory"
    assert limit.name(host) == "out of memory: needed more than memory_limit_gib=1; MemoryError"
    assert "needed more than memory_limit_gib=1 of the GPU; Out" in str(limit.name(card))


@pytest.mark.parametrize(
    ("code", "log", "kernel", "words"),
    [
        (-9, "", True, "out of memory: the process was ended by SIGKILL, by the kernel"),
        (-9, "", False, "killed: the process was ended by SIGKILL, as happens when memory runs"),
        (-6, "std::bad_alloc", False, "needed more than memory_limit_gib=2; the process was ended"),
        (-11, "Segmentation fault", True, "killed: the process was ended by SIGSEGV"),
        (3, "", True, "crash: the process exited with code 3"),
    ],
)
def test_why_a_process_died(code: int, log: str, kernel: bool, words: str) -> None:
    assert words in Death(code, log, kernel, served=False).reason(2.0)


def test_the_limit_on_a_gpu_is_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = type("Card", (), {"total_memory": 80 * GIB})
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    assert limits._limit_card(20.0) == "memory_limit_gib=20 of the GPU"
    limits._limit_card(100.0)
    assert shares == [0.25, 1.0]


CODE = """
import torch
from bench import limits
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
