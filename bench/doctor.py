"""`doctor`: which backends work here and why the others do not; each is tried in a process of its
own, since an import that fails may crash, and one that works may change the next."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil

from bench import environment
from bench.errors import one_line

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
        "fused scan of mamba on a CPU",
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
        "CUDA kernels of mamba",
        "import selective_scan_cuda; import mamba_ssm; print(mamba_ssm.__version__)",
    ),
    (
        "causal_conv1d",
        "CUDA kernels of mamba",
        "import causal_conv1d_cuda; import causal_conv1d; print(causal_conv1d.__version__)",
    ),
    ("flash_attn", "attention on CUDA", "import flash_attn; print(flash_attn.__version__)"),
    ("fla", "kernels of linear attention", "import fla; print(fla.__version__)"),
    ("datasets", "task.hub=NAME", "import datasets; print(datasets.__version__)"),
)
TIMEOUT_S = 120


def doctor() -> int:
    """Print the report; the exit code is 0 where torch works."""
    memory = psutil.virtual_memory()
    print(f"python        {sys.version.split()[0]}")
    print(f"processor     {environment.cpu_name()}, {environment.cores()} cores for this process")
    print(
        f"memory        {memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free now"
    )
    card = environment.gpu()
    print(
        f"gpu           {card['name']}, driver {card['driver']}" if card else "gpu           none"
    )
    governor = environment.governor()
    print(f"governor      {governor or 'not readable'}")
    wanted = environment.worker_environment(environment.cores())
    allocator = ", ".join(f"{name}={wanted[name]}" for name in environment.ALLOCATOR)
    applies = "" if sys.platform == "linux" else " (read by glibc alone, so without effect here)"
    print(f"allocator     {allocator}{applies}")
    with ThreadPoolExecutor(max_workers=max(environment.cores() // 2, 1)) as pool:
        results = list(pool.map(lambda entry: attempt(entry[2]), BACKENDS))
    width = max(len(name) for name, *_ in BACKENDS)
    print("\nbackends")
    for (name, purpose, _), (works, text) in zip(BACKENDS, results, strict=True):
        print(f"  {'ok' if works else 'no':<3}{name:<{width}}  {text}  [{purpose}]")
    return 0 if results[0][0] else 1


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
