"""What went on around a cell, for the environment part of its record."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.errors import BadInput
from bench.machine import gpus, watch
from bench.machine.environment import load

Seen = dict[str, Any]
MUCH = 0.5  # cores that others use, from which on they can spoil a time
CROWDED = "crowded: "


class Surroundings:
    """Looks at the machine before and after a cell; `cuda` says whether the cell uses the GPU."""

    def __init__(self, *, cuda: bool) -> None:
        self.cuda = cuda
        self.on_gpu: list[Seen] | None = None
        self._seen: Seen = {}
        self._begin: watch.Look | None = None

    def before(self) -> None:
        """Watch for a moment in which nothing of ours runs."""
        first = watch.look(cuda=self.cuda)
        time.sleep(watch.WINDOW_S)
        self._begin = watch.look(cuda=self.cuda)
        self.on_gpu = gpus.processes() if self.cuda else None
        self._seen = {
            "load_before": load(),
            "steal_before": watch.steal(first, self._begin),
            "busy_before": watch.busy(first, self._begin),
            "gpu_processes": self.on_gpu,
        }

    def after(self) -> Seen:
        """All that was seen; empty for a cell that did not run."""
        if self._begin is None:
            return {}
        end = watch.look(cuda=self.cuda)
        return {
            **self._seen,
            "load_after": load(),
            "steal": watch.steal(self._begin, end),
            "busy": watch.busy(self._begin, end),
            "throttled": watch.throttled(self._begin, end),
        }


def crowded(seen: Seen, threads: int, cores: int) -> str | None:
    """Why times say little that `threads` took beside others; None where there was room for all."""
    others = seen.get("busy") or []
    used = sum(other["cores"] for other in others)
    if used < MUCH or threads + used <= cores:
        return None
    names = ", ".join(dict.fromkeys(str(other["name"]) for other in others))
    return f"{CROWDED}other processes ({names}) used {used:.1f} of {cores} cores meanwhile"


def disturbed(records: Iterable[Mapping[str, Any]]) -> str | None:
    """One sentence on how many cells were crowded, those of a GPU and of scores as well."""
    around = [record.get("environment") or {} for record in records]
    cells = sum(
        crowded(seen, seen.get("threads", 1), seen.get("cores", 1)) is not None for seen in around
    )
    if not cells:
        return None
    return (
        f"other processes took cores away from {cells} cells, whose times say little: run them "
        "again with force=true on an idle machine; `python -m bench doctor` says what is busy now"
    )


def check_gpu(policy: str, devices: Iterable[str]) -> None:
    """Refuse a policy that cannot be kept: nobody can say who computes on the GPU."""
    if policy == "refuse" and "cuda" in devices and gpus.processes() is None:
        raise BadInput(
            "busy_gpu=refuse needs to know who computes on the GPU, which nvidia-ml-py (extra "
            "energy) and the driver do not tell here; allowed: busy_gpu=record."
        )


def occupied(processes: Sequence[Seen] | None) -> str | None:
    """Why a cell is not run with busy_gpu=refuse; None where the GPU is free."""
    if not processes:
        return None
    names = ", ".join(f"{p['name']} (pid {p['pid']}, {p['mib']} MiB)" for p in processes)
    return f"busy GPU: {names} computes on it; end it, or allow it with busy_gpu=record"
