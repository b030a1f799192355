"""How torch was built and how it runs in this process; the one file here that imports torch."""

import re
from typing import Any

import torch


def torch_facts() -> dict[str, Any]:
    """How torch was built and how it runs here: libraries, instructions, threads."""
    settings = dict(re.findall(r"(\w+)=([^,]*)", torch.__config__.show()))
    onednn = re.search(r"(?:MKL-DNN|oneDNN) v([\d.]+)", torch.__config__.show())
    return {
        "version": torch.__version__,
        "blas": settings.get("BLAS_INFO"),
        "lapack": settings.get("LAPACK_INFO"),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": onednn[1] if onednn and torch.backends.mkldnn.is_available() else None,
        "openmp": torch.backends.openmp.is_available(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cuda": torch.version.cuda,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul": torch.get_float32_matmul_precision(),
    }
