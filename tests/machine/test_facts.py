"""Limits and settings, read from made-up trees of both versions of control groups."""

from pathlib import Path

import pytest

from bench.machine import cgroup, facts
from tests.machine.tree import write

CPU = "sys/devices/system/cpu"
PERIOD = 100_000
MIB = 1 << 20


def test_limits_of_version_2_are_the_least_of_all_groups_above(tmp_path: Path) -> None:
    root = write(tmp_path, {
        "proc/self/cgroup": "0::/user/job\n",
        "sys/fs/cgroup/user/job/cpu.max": f"max {PERIOD}\n",
        "sys/fs/cgroup/user/cpu.max": f"{3 * PERIOD // 2} {PERIOD}\n",
        "sys/fs/cgroup/user/job/memory.max": str(4 << 30),
        "sys/fs/cgroup/user/memory.max": "max",
        "sys/fs/cgroup/user/cpu.stat": "usage_usec 9\nnr_throttled 7\nthrottled_usec 2500000\n",
    })  # fmt: skip
    assert cgroup.quota(root) == 1.5
    assert cgroup.memory_limit_gib(root) == 4.0
    assert cgroup.throttled(root) == (7, 2.5)


def test_limits_of_version_1_in_a_container(tmp_path: Path) -> None:
    """The path in /proc is the host's there; the group itself is mounted at the root."""
    root = write(tmp_path, {
        "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": str(2 * PERIOD),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": str(PERIOD),
        "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_throttled 3\nthrottled_time 1500000000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(9223372036854771712),
    })  # fmt: skip
    assert cgroup.quota(root) == 2.0
    assert cgroup.throttled(root) == (3, 1.5)
    assert cgroup.memory_limit_gib(root) is None


def test_memory_left_in_the_tightest_of_nested_groups(tmp_path: Path) -> None:
    """Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory interface files."""
    root = write(tmp_path, {
        "proc/self/cgroup": "0::/jobs/mine\n",  # the root has no memory.max
        "sys/fs/cgroup/jobs/memory.max": f"{300 * MIB}\n",
        "sys/fs/cgroup/jobs/memory.current": f"{250 * MIB}\n",
        "sys/fs/cgroup/jobs/memory.stat": f"anon 5\ninactive_file {20 * MIB}\n",
        "sys/fs/cgroup/jobs/mine/memory.max": "max\n",
        "sys/fs/cgroup/jobs/mine/memory.current": "1\n",
        "sys/fs/cgroup/jobs/mine/memory.stat": "inactive_file 0\n",
    })  # fmt: skip
    assert cgroup.memory_left(root) == 70 * MIB


def test_memory_left_in_groups_of_version_1(tmp_path: Path) -> None:
    memory = "sys/fs/cgroup/memory"
    root = write(tmp_path, {
        "proc/self/cgroup": "9:name=systemd:/\n4:memory:/a\n1:cpu:/a\n0::/\n",
        f"{memory}/memory.limit_in_bytes": str((1 << 63) - 4096),
        f"{memory}/memory.usage_in_bytes": "5",
        f"{memory}/memory.stat": "total_inactive_file 0",
        f"{memory}/a/memory.limit_in_bytes": str(8 * MIB),
        f"{memory}/a/memory.usage_in_bytes": str(9 * MIB),
        f"{memory}/a/memory.stat": f"inactive_file {3 * MIB}\ntotal_inactive_file 0",
    })  # fmt: skip
    assert cgroup.memory_left(root) == 0  # more is used than the group allows
    assert cgroup.memory_left(tmp_path / "nowhere") is None


def test_settings_of_the_processor(tmp_path: Path) -> None:
    root = write(tmp_path, {
        f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
        f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "4000000\n",
        f"{CPU}/cpu1/cpufreq/cpuinfo_max_freq": "3000000\n",
        f"{CPU}/intel_pstate/no_turbo": "1\n",
        f"{CPU}/smt/active": "1\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "proc/cpuinfo": "processor : 0\nflags\t\t: fpu sse hypervisor\n",
        "sys/class/dmi/id/sys_vendor": "QEMU\n",
        ".dockerenv": "",
    })  # fmt: skip
    found = facts.describe(root)
    assert found["governor"] == "powersave"
    assert found["frequency_max_mhz"] == 3500.0
    assert (found["turbo"], found["smt"]) == (False, True)
    assert (found["virtual"], found["container"]) == ("QEMU", "docker")
    assert found["hugepages"] == "madvise"


def test_where_nothing_can_be_read_all_is_missing(tmp_path: Path) -> None:
    found = facts.describe(tmp_path)
    assert {found.pop(name) is not None for name in ("kernel", "libc")} == {True}
    assert set(found.values()) == {None}


def test_variables_that_matter_without_what_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OMP_PROC_BIND": "close", "LD_PRELOAD": "/home/me/lib/libjemalloc.so.2",
        "TORCH_HOME": "/home/me", "CUDA_API_TOKEN": "secret", "EDITOR": "vi",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    found = facts.variables()
    assert found["OMP_PROC_BIND"] == "close"
    assert found["LD_PRELOAD"] == "libjemalloc.so.2"
    assert not {"TORCH_HOME", "CUDA_API_TOKEN", "EDITOR"} & set(found)
