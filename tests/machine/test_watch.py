"""What disturbs a measurement is seen: made-up counters, and a process that really spins."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.doctor import spoilers
from bench.machine import gpus, watch
from bench.machine.watch import Look
from tests.machine.tree import write

SPIN = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"


def counters(**changes: object) -> Look:
    empty = {"at": 0.0, "stolen": None, "others": {}, "hot": None, "quota": None, "gpu": None}
    return Look(**(empty | changes))  # type: ignore[arg-type]


def test_steal_is_its_share_of_all_ticks(tmp_path: Path) -> None:
    #         user nice system idle iowait irq softirq steal guest guest_nice
    write(tmp_path, {"proc/stat": "cpu  100 0 50 800 10 0 0 40 90 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"})
    first = watch.look(root=tmp_path)
    assert first.stolen == (40, 1000)  # the guest's time is part of the user's
    write(tmp_path, {"proc/stat": "cpu  150 0 50 820 10 0 0 70 140 0\n"})
    assert watch.steal(first, watch.look(root=tmp_path)) == 0.3
    assert watch.steal(first, first) is None
    assert watch.steal(first, counters()) is None


def test_throttling_is_one_sentence_or_none(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    first = watch.look(root=write(tmp_path, {folder.format(0): "5\n", folder.format(1): "2\n"}))
    second = watch.look(root=write(tmp_path, {folder.format(1): "4\n"}))
    assert watch.throttled(first, second) == "cores were slowed down for their heat 2 times"
    assert watch.throttled(first, first) is None
    waited = watch.throttled(counters(quota=(3, 1.0)), counters(quota=(10, 1.25)))
    assert waited == "a processor quota made the group wait 7 times, 0.25 s"
    held = counters(gpu={"heat": 10**9, "its power limit": 5})
    still = counters(gpu={"heat": 3 * 10**9, "its power limit": 5})
    assert watch.throttled(held, still) == "the GPU was held back by heat for 2.00 s"


@pytest.fixture
def foreign() -> int:
    """A spinning process that is no descendant of this one: it was handed to another parent."""
    script = (
        "import subprocess, sys; quiet = subprocess.DEVNULL\n"
        f"command = [sys.executable, '-c', {SPIN!r}]\n"
        "print(subprocess.Popen(command, stdout=quiet, stderr=quiet).pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans change their parent on Unix")
def test_a_process_of_others_is_seen_and_ours_is_not(foreign: int) -> None:
    ours = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        first = watch.look()
        time.sleep(1.0)
        second = watch.look()
        pids = {pid for pid, _ in second.others}
        assert foreign in pids
        assert not {ours.pid, os.getpid()} & pids
        key = next(key for key in second.others if key[0] == foreign)
        alone = {"others": {key: second.others[key]}, "at": second.at}
        (seen,) = watch.busy(first, counters(**alone))
        assert seen["name"].startswith("python")
        times = psutil.Process(foreign).cpu_times()
        most = (times.user + times.system) / (second.at - first.at)
        assert 0 < seen["cores"] <= most + 0.005  # which is rounded to two places
        assert any("of a core" in sentence for sentence in spoilers(first, counters(**alone)))
    finally:
        ours.kill()
        ours.wait()
        psutil.Process(foreign).kill()


def test_one_tick_of_the_clock_is_no_busy_process() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    first = counters(others={(1, 0.0): ("a", 5.0), (2, 0.0): ("b", 1.0)})
    second = counters(at=0.1, others={(1, 0.0): ("a", 5.0 + tick), (2, 0.0): ("b", 1.05)})
    assert watch.busy(first, second) == [{"name": "b", "cores": 0.5}]


def test_doctor_names_a_slow_governor_and_a_small_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.doctor.cores", lambda: 4)
    root = write(tmp_path, {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
        "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000",
    })  # fmt: skip
    found = spoilers(counters(stolen=(0, 0)), counters(at=1.0, stolen=(5, 100)), root)
    assert "the hypervisor gives 5% of the processors' time to others" in found
    assert any(sentence.startswith("the governor powersave may keep") for sentence in found)
    assert any(
        "2.5 cores for 4 threads" in sentence and "threads=2" in sentence for sentence in found
    )
    assert spoilers(counters(), counters(at=1.0), tmp_path / "none") == []


class FakeNvml:
    """The part of pynvml that is used, with one process on one device."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    NVML_PERF_POLICY_BOARD_LIMIT, NVML_PERF_POLICY_RELIABILITY = 3, 5

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"device {index}"

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[SimpleNamespace]:
        assert device == "device 3"
        return [SimpleNamespace(pid=12, usedGpuMemory=300 << 20)]

    def nvmlSystemGetProcessName(self, pid: int) -> bytes:
        return b"/usr/bin/python3 train.py"

    def nvmlDeviceGetViolationStatus(self, device: str, policy: int) -> SimpleNamespace:
        if policy > 1:
            raise self.NVMLError
        return SimpleNamespace(violationTime=(policy + 1) * 100)


def test_the_gpu_is_the_first_that_torch_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())  # type: ignore[arg-type]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpus.processes() == [{"pid": 12, "name": "python3", "mib": 300}]
    assert gpus.held_back_ns() == {"its power limit": 100, "heat": 200}


def test_without_the_library_all_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus.processes() is None
    assert gpus.held_back_ns() is None
