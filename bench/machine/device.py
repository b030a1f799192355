"""The device that cells run on. Imports no torch: another process is asked where it must be."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from bench.errors import BadInput
from bench.machine.gpus import first_visible

PROBE = """
import torch
print("yes" if torch.cuda.is_available() else
      "torch %s is a CPU build" % torch.__version__ if torch.version.cuda is None else
      "torch %s finds no CUDA device" % torch.__version__)
"""
MPS_PROBE = """
import torch
print("yes" if torch.backends.mps.is_available() else
      "torch %s is built without MPS" % torch.__version__ if not torch.backends.mps.is_built() else
      "torch %s finds no Metal device" % torch.__version__)
"""
PROBE_S = 120


@functools.cache
def gpu() -> dict[str, str] | None:
    """Name and driver of the NVIDIA GPU that cells use, by its driver's own tool, or None."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if (first := first_visible()).isdigit() or first.startswith("GPU-"):
        query.append(f"--id={first}")
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # a tool without a device: there is no GPU to name
    line = done.stdout.strip().splitlines()
    if not line:
        return None
    name, driver, memory = (part.strip() for part in line[0].split(","))
    return {"name": name, "driver": driver, "memory": memory}


@functools.cache
def cuda_problem() -> str | None:
    """Why there is no CUDA here, or None where there is; torch is asked in another process."""
    files = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
    if gpu() is None and not any(Path(path).exists() for path in files):
        return "no NVIDIA device is visible"
    return _answer(PROBE)


@functools.cache
def mps_problem() -> str | None:
    """Why there is no MPS here, or None where there is."""
    return _answer(MPS_PROBE) if sys.platform == "darwin" else "this is no Mac"


def _answer(probe: str) -> str | None:
    """What stands in the way, by a program that says yes where nothing does."""
    # -P: a torch/ or random.py of the working directory is none of what a cell would import.
    command = [sys.executable, "-P", "-c", probe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return f"torch gave no answer in {PROBE_S} s"
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        return f"torch could not be asked ({last[-1] if last else 'it died'})"
    answer = done.stdout.strip()
    return None if answer == "yes" else answer


def resolve_device(name: str) -> str:
    """The device of a cell: `auto` becomes what is there, one that is not there is an error.

    `auto` says so on stderr where it passes a GPU over: figures of the CPU would surprise. MPS has
    to be asked for: not every operator has a form there.
    """
    if name == "mps" and (missing := mps_problem()):
        raise BadInput(f"device=mps is not there: {missing}; allowed here: cpu, auto.")
    problem = cuda_problem() if name in ("auto", "cuda") else None
    if name == "auto":
        if problem and (card := gpu()):
            print(f"device=auto: cells run on the CPU, not on {card['name']}: {problem}",
                  file=sys.stderr)  # fmt: skip
        return "cpu" if problem else "cuda"
    if problem:
        raise BadInput(f"device=cuda is not there: {problem}; allowed here: cpu, auto.")
    return name
