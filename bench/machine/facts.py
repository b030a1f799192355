"""What does not change while cells run: the kernel, its limits, the processor's settings.

Each is None where it cannot be read, as outside Linux. `root` is another tree than `/` in tests.
"""

import os
import platform
import re
from pathlib import Path
from typing import Any

from bench.machine import cgroup
from bench.machine.cgroup import read

CPUS = Path("sys/devices/system/cpu")
# Variables that change how fast the same code runs, or which code runs.
VARIABLES = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|NUMBA|MALLOC|DNNL|ONEDNN|ATEN|TORCH|PYTORCH|"
    r"CUDA|CUBLAS|NVIDIA|TRITON|HIP|ROCR|LD_PRELOAD|GLIBC_TUNABLES|PYTHONMALLOC|PYTHONHASHSEED)"
)
PRIVATE = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|URL|PATH|HOME|DIR|CACHE|PROXY)")


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """Facts for the environment part of a record."""
    return {
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "virtual": virtual(root),
        "container": container(root),
        "cpu_quota": cgroup.quota(root),
        "memory_limit_gib": cgroup.memory_limit_gib(root),
        "governor": governor(root),
        "turbo": turbo(root),
        "smt": smt(root),
        "frequency_max_mhz": frequency_mhz("cpuinfo_max_freq", root),
        "hugepages": hugepages(root),
        "clocksource": read(
            root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
    }


def variables() -> dict[str, str]:
    """The user's environment variables that can change a figure; none that may hold a secret.

    Of preloaded libraries (another allocator, say) the names of the files, not their folders.
    """
    return {
        name: " ".join(Path(part).name for part in value.replace(":", " ").split())
        if name == "LD_PRELOAD"
        else value
        for name, value in sorted(os.environ.items())
        if VARIABLES.match(name) and not PRIVATE.search(name)
    }


def governor(root: Path = Path("/")) -> str | None:
    """What decides on the processor's frequency, such as performance or powersave."""
    return read(root / CPUS / "cpu0/cpufreq/scaling_governor")


def turbo(root: Path = Path("/")) -> bool | None:
    """Whether frequencies above the nominal one are allowed."""
    if (text := read(root / CPUS / "intel_pstate/no_turbo")) is not None:
        return text == "0"
    text = read(root / CPUS / "cpufreq/boost")
    return None if text is None else text == "1"


def smt(root: Path = Path("/")) -> bool | None:
    """Whether two threads share a core."""
    text = read(root / CPUS / "smt/active")
    return None if text is None else text == "1"


def frequency_mhz(name: str, root: Path = Path("/")) -> float | None:
    """Mean over the processors of a frequency: scaling_cur_freq, cpuinfo_max_freq, …"""
    found = [read(path) for path in (root / CPUS).glob(f"cpu[0-9]*/cpufreq/{name}")]
    known = [int(text) / 1000 for text in found if text]
    return round(sum(known) / len(known), 1) if known else None


def hugepages(root: Path = Path("/")) -> str | None:
    """The policy of transparent huge pages: always, madvise or never."""
    text = read(root / "sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", text or "")
    return chosen[1] if chosen else None


def virtual(root: Path = Path("/")) -> str | None:
    """What kind of virtual machine this is; "no" where the processor is no guest's."""
    text = read(root / "proc/cpuinfo")
    if text is None:
        return None
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if flags is None:
        return None
    maker = read(root / "sys/class/dmi/id/sys_vendor") or read(root / "sys/hypervisor/type")
    if "hypervisor" in flags[1].split():
        return maker or "yes"
    # Only x86 tells a guest by a flag.
    return "no" if platform.machine() in ("x86_64", "AMD64", "i686") else None


def container(root: Path = Path("/")) -> str | None:
    """The kind of container that this process is in, None where it shows no sign of one."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    text = read(root / "proc/1/cgroup") or ""
    kinds = ("kubepods", "docker", "containerd", "lxc", "garden")
    return next((kind for kind in kinds if kind in text), None)
