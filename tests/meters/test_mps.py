"""What a Mac's GPU is asked for, with counters and a clock that the tests keep."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bench.machine import device
from bench.meters.allocator import run_phases
from bench.meters.memory import peak_over
from bench.meters.time import Limits, measure
from bench.tasks.base import scoring

MPS = torch.device("mps")


@dataclass
class Metal:
    """Stands for torch.mps: work is queued, and done when it is waited for."""

    queued: int = 0
    done: int = 0
    held: int = 1000
    state: int = 7

    def synchronize(self) -> None:
        self.done, self.queued = self.done + self.queued, 0

    def current_allocated_memory(self) -> int:
        assert self.queued == 0, "read before the work was done"
        return self.held

    def driver_allocated_memory(self) -> int:
        return 4096

    def get_rng_state(self) -> int:
        return self.state

    def set_rng_state(self, state: int) -> None:
        self.state = state


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch) -> Metal:
    """What `measure` and `run_phases` ask of torch.mps."""
    fake = Metal()
    for name in ("synchronize", "current_allocated_memory", "driver_allocated_memory",
                 "get_rng_state", "set_rng_state"):  # fmt: skip
        monkeypatch.setattr(torch.mps, name, getattr(fake, name))
    return fake


def test_a_call_has_ended_when_its_work_is_done(metal: Metal) -> None:
    left: list[int] = []

    def before() -> None:
        left.append(metal.queued)
        metal.queued += 10  # what prepares a call

    def call() -> None:
        assert metal.queued == 0, "the preparation runs inside what is timed"
        metal.queued += 1

    timing = measure(call, Limits(0, 4, 0.0, 5.0, 1e9), MPS, before)
    assert timing.clock == "perf_counter after torch.mps.synchronize"
    assert len(timing.samples_s) == 4
    assert left == [0] * 5, "nothing is pending when a window ends"
    assert metal.done == 5 * 11


def test_memory_without_a_counter_of_the_peak_has_none(metal: Metal) -> None:
    def call() -> None:
        metal.queued += 1
        metal.held += 24

    phases = run_phases({"forward": call, "update": call}, [], MPS)
    assert [phase.added for phase in phases.values()] == [24, 24]
    assert peak_over(phases.values(), nn.Linear(2, 2), MPS) == {
        "parameters_bytes": 24, "peak_bytes": None, "reserved_bytes": 4096,
        "method": "MPS allocator, which keeps no peak",
    }  # fmt: skip


def test_scoring_leaves_the_random_state_as_it_was(metal: Metal) -> None:
    with scoring(None, MPS):
        metal.state = 8
    assert metal.state == 7


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """No answer of another machine, nor one of a faked machine for the tests that follow."""
    device.mps_problem.cache_clear()
    yield
    device.mps_problem.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_it_has_to_be_there_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_problem", lambda: "no NVIDIA device is visible")
    for system, probe, problem in (
        ("linux", "print('yes')", "this is no Mac"),
        ("darwin", "print('torch 9 is built without MPS')", "torch 9 is built without MPS"),
    ):
        device.mps_problem.cache_clear()
        monkeypatch.setattr(device.sys, "platform", system)
        monkeypatch.setattr(device, "MPS_PROBE", probe)
        with pytest.raises(ValueError, match=f"device=mps is not there: {problem}; allowed here"):
            device.resolve_device("mps")
    device.mps_problem.cache_clear()
    monkeypatch.setattr(device, "MPS_PROBE", "print('yes')")
    assert device.resolve_device("mps") == "mps"
    assert device.resolve_device("auto") == "cpu"
