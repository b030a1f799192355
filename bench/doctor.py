"""`doctor`: what this machine is, what would spoil a measurement now, and which backends work.

Each backend is tried in a process of its own, since an import that fails may crash, and one that
works may change the next.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from bench.constants import GIB
from bench.errors import one_line
from bench.machine import cgroup, facts, gpus, watch
from bench.machine.device import gpu
from bench.machine.key import machine_key, machine_parts
from bench.machine.processor import cores, cpu_name
from bench.machine.variables import ALLOCATOR, worker_environment

WINDOW_S = 1.0  # for which other processes are watched
STEAL = 0.01  # share of stolen time from which it is worth a sentence
SLOW_GOVERNORS = ("powersave", "conservative", "ondemand", "userspace")

# Name, what it serves, and the code that proves that it works, ending with a version.
BACKENDS = (
    ("torch", "every model", "import torch; print(torch.__version__)"),
    (
        "torch + cuda",
        "device=cuda",
        "import torch; assert torch.cuda.is_available(), 'no CUDA device: torch %s was built for"
        " %s and finds none' % (torch.__version__, torch.version.cuda or 'the CPU alone');"
        " print(torch.cuda.get_device_name(0))",
    ),
    (
        "torch.compile",
        "compile=true",
        "import torch; f = torch.compile(lambda x: x * 2 + 1);"
        " assert f(torch.ones(3)).sum() == 9; print(torch.__version__)",
    ),
    (
        "numba",
        "fused kernels of mamba, mamba2, mamba3 and rwkv on a CPU",
        "import numba, numpy; f = numba.njit(lambda x: x + 1); assert f(1) == 2;"
        " print(numba.__version__)",
    ),
    ("timm", "resnet on images", "import timm; print(timm.__version__)"),
    (
        "diffusers",
        "diffusion",
        "from diffusers import UNet2DModel, DDPMScheduler; import diffusers;"
        " print(diffusers.__version__)",
    ),
    (
        "transformers",
        "reference models",
        "from transformers import LlamaForCausalLM; import transformers;"
        " print(transformers.__version__)",
    ),
    (
        "rwkv",
        "reference RWKV-7",
        "import os; os.environ['RWKV_V7_ON'] = '1'; from rwkv.model import RWKV;"
        " import importlib.metadata as m; print(m.version('rwkv'))",
    ),
    (
        "mamba_ssm",
        "CUDA kernels of mamba and mamba2",
        "import selective_scan_cuda; import mamba_ssm; print(mamba_ssm.__version__)",
    ),
    (
        "mamba_ssm 2.3.2",
        "CUDA kernels of mamba3",
        "import mamba_ssm; from importlib.util import find_spec;"
        " assert find_spec('mamba_ssm.ops.triton.mamba3'), 'mamba_ssm %s is installed and has no"
        " Mamba-3; needed is 2.3.2 or later: pip install --no-build-isolation"
        ' "mamba-ssm>=2.3.2"\' % mamba_ssm.__version__;'
        " import mamba_ssm.ops.triton.mamba3.mamba3_siso_combined; print(mamba_ssm.__version__)",
    ),
    (
        "causal_conv1d",
        "CUDA kernels of mamba and mamba2",
        "import causal_conv1d_cuda; import causal_conv1d; print(causal_conv1d.__version__)",
    ),
    ("flash_attn", "attention on CUDA", "import flash_attn; print(flash_attn.__version__)"),
    ("fla", "kernels of linear attention", "import fla; print(fla.__version__)"),
    (
        "zeus",
        "energy=true",
        "import importlib.metadata as m; from zeus.device import get_cpus, get_gpus\n"
        "from zeus.exception import ZeusBaseError\n"
        "reasons = []\n"
        "for find in (get_gpus, get_cpus):\n"
        "    try: find()\n"
        "    except ZeusBaseError as error: reasons.append(str(error))\n"
        "assert len(reasons) < 2, ' '.join(reasons)\n"
        "print(m.version('zeus'))",
    ),
    ("datasets", "task.hub=NAME", "import datasets; print(datasets.__version__)"),
)
TIMEOUT_S = 120


def doctor() -> int:
    """Print the report; the exit code is 0 where torch works."""
    for name, text in facts_now().items():
        print(f"{name:<14}{text}")
    print("\nwould spoil a measurement now")
    for sentence in spoilers(*two_looks()) or ["nothing that can be seen from here"]:
        print(f"  {sentence}")
    with ThreadPoolExecutor(max_workers=max(cores() // 2, 1)) as pool:
        results = list(pool.map(lambda entry: attempt(entry[2]), BACKENDS))
    width = max(len(name) for name, *_ in BACKENDS)
    print("\nbackends")
    for (name, purpose, _), (works, text) in zip(BACKENDS, results, strict=True):
        print(f"  {'ok' if works else 'no':<3}{name:<{width}}  {text}  [{purpose}]")
    return 0 if results[0][0] else 1


def facts_now() -> dict[str, str]:
    """What this machine is, by name; what cannot be read says so."""
    memory, card, found = psutil.virtual_memory(), gpu(), facts.describe()
    known = {name: _word(value) for name, value in found.items()}
    quota, limit = found["cpu_quota"], found["memory_limit_gib"]
    wanted = worker_environment(cores())
    settings = ", ".join(f"{name}={wanted[name]}" for name in ALLOCATOR if name in wanted)
    allocator = settings or "none set: glibc's alone is known here"
    parts = ", ".join(name for name, value in machine_parts().items() if value)
    return {
        "python": sys.version.split()[0],
        "machine key": f"{machine_key()} (from {parts}; not from the kernel's version,"
        " the host's name or what is written at boot)",
        "processor": f"{cpu_name()}, {cores()} cores for this process",
        "memory": f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB free now",
        "gpu": f"{card['name']}, driver {card['driver']}" if card else "none",
        "kernel": f"{known['kernel']}, {known['libc']}, huge pages {known['hugepages']}, "
        f"clock {known['clocksource']}",
        "virtual": f"{known['virtual']}, container: {found['container'] or 'no sign of one'}",
        "limits": f"{'no' if quota is None else f'{quota:g} cores'} processor quota, "
        f"{'no' if limit is None else f'{limit:g} GiB'} memory limit",
        "frequency": f"governor {known['governor']}, turbo {known['turbo']}, "
        f"threads share cores {known['smt']}, MHz at most {known['frequency_max_mhz']}",
        "allocator": allocator,
        "variables": ", ".join(f"{k}={v}" for k, v in facts.variables().items()) or "none set",
    }


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not readable" if value is None else str(value)


def two_looks() -> tuple[watch.Look, watch.Look]:
    """The machine's counters before and after a moment in which nothing of ours runs."""
    cuda = gpu() is not None
    first = watch.look(cuda=cuda)
    time.sleep(WINDOW_S)
    return first, watch.look(cuda=cuda)


def spoilers(first: watch.Look, second: watch.Look, root: Path = Path("/")) -> list[str]:
    """What would make figures worse or less certain if cells ran now, a sentence each."""
    found = [f"{p['name']} uses {p['cores']:.0%} of a core" for p in watch.busy(first, second)]
    if (stolen := watch.steal(first, second)) is not None and stolen >= STEAL:
        found.append(f"the hypervisor gives {stolen:.0%} of the processors' time to others")
    if held := watch.throttled(first, second):
        found.append(held)
    if (governor := facts.governor(root)) in SLOW_GOVERNORS:
        found.append(f"the governor {governor} may keep the frequency down; performance does not")
    quota = cgroup.quota(root)
    if quota is not None and quota < cores():
        found.append(
            f"a quota of {quota:g} cores for {cores()} threads makes them wait; "
            f"allowed without waiting: threads={max(int(quota), 1)}"
        )
    users = gpus.processes() or []
    return found + [f"{user['name']} (pid {user['pid']}) computes on the GPU" for user in users]


def attempt(code: str) -> tuple[bool, str]:
    """Whether `code` runs in a fresh interpreter, with its last line or the error's."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        return False, f"gave no answer in {TIMEOUT_S} s"
    if done.returncode < 0:
        return False, f"crashes on import (signal {-done.returncode})"
    text = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, one_line(text[-1])[:160] if text else "no message"
