"""Meters on a real device: against torch's own timer, tensors of known size, NVML."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from bench.machine import gpus, watch
from bench.meters.allocator import run_phases
from bench.meters.energy import WINDOW_S, measure_energy
from bench.meters.time import Limits, measure
from bench.scenarios.train import step_memory
from bench.training import Trainer
from tests.cuda import DEVICE, ON_CUDA
from tests.meters.test_memory import RECIPE, Network

pytestmark = ON_CUDA
MIB = 2**20
LIMITS = Limits(warmup=3, min_samples=20, min_seconds=0.2, max_seconds=5.0, relative_error=0.02)
POWER_W = (30, 1500)  # of cards from a laptop's to a server's under load


def product(side: int) -> tuple[Tensor, Tensor, Tensor]:
    a, b = (torch.randn(side, side, device=DEVICE) for _ in range(2))
    return a, b, torch.empty_like(a)


@pytest.mark.parametrize("side", [2048, 4096])
def test_events_tell_what_torchs_own_timer_tells(side: int) -> None:
    a, b, c = product(side)
    ours = measure(lambda: torch.matmul(a, b, out=c), LIMITS, DEVICE)
    code = "torch.matmul(a, b, out=c)"
    timer = Timer(code, globals={"torch": torch, "a": a, "b": b, "c": c})
    theirs = timer.blocked_autorange(min_run_time=0.5).median
    assert ours.clock == "CUDA events"
    assert ours.valid, ours.reason
    assert ours.median_s == pytest.approx(theirs, rel=0.1)


def test_what_is_done_before_a_call_is_not_in_its_time() -> None:
    a, b, c = product(4096)
    small = torch.zeros(16, device=DEVICE)
    alone = measure(lambda: torch.matmul(a, b, out=c), LIMITS, DEVICE).median_s
    after = measure(
        lambda: small.add_(1), LIMITS, DEVICE, before=lambda: torch.matmul(a, b, out=c)
    ).median_s
    assert after < alone / 4


def test_phases_are_tensors_of_known_size() -> None:
    kept: list[Tensor] = []
    phases = run_phases(
        {
            "adds": lambda: kept.append(torch.ones(64 * MIB, dtype=torch.uint8, device=DEVICE)),
            "needs": lambda: torch.ones(256 * MIB, dtype=torch.uint8, device=DEVICE),
            "frees": kept.clear,
        },
        [],
        DEVICE,
    )
    before = torch.cuda.memory_allocated(DEVICE)
    adds, needs, frees = phases.values()
    assert adds.added == pytest.approx(64 * MIB, rel=0.02)
    assert needs.added == 0
    assert needs.peak - before == pytest.approx(320 * MIB, rel=0.02)
    assert frees.added == pytest.approx(-64 * MIB, rel=0.02)
    assert all(p.reserved is not None and p.reserved >= p.peak for p in phases.values())


def test_each_phase_of_a_training_step_is_what_a_hand_computes() -> None:
    trainer = Trainer(Network().to(DEVICE), RECIPE, steps=10)
    batch = {"x": torch.randn(8000, 100, device=DEVICE)}
    trainer.step(batch)
    found = step_memory(trainer, batch)
    matrix, head = 4 * 100 * 1000, 4 * (1000 * 500 + 500)
    assert found["parameters_bytes"] == found["gradients_bytes"] == matrix + head
    assert found["optimizer_bytes"] == pytest.approx(matrix + 2 * head, rel=0.02)
    assert found["activations_bytes"] == pytest.approx(4 * 8000 * (1000 + 500), rel=0.02)
    assert found["reserved_bytes"] >= found["peak_bytes"]
    assert found["method"] == "CUDA allocator"


def test_energy_is_that_of_a_working_card() -> None:
    pytest.importorskip("zeus.monitor")
    a, b, c = product(4096)

    def call() -> None:
        torch.matmul(a, b, out=c)

    median = measure(call, LIMITS, DEVICE).median_s
    found = measure_energy(call, median, 2 * 4096**3, DEVICE)
    if found["joules"] is None:
        pytest.skip(f"this card's energy cannot be read: {found['reason']}")
    assert "NVML" in found["source"]
    assert found["window_s"] >= WINDOW_S * 0.9
    assert POWER_W[0] < found["domains"]["gpu 0"] / found["window_s"] < POWER_W[1]
    assert math.isclose(
        found["joules_per_item"], found["joules"] / (found["calls"] * 2 * 4096**3), rel_tol=1e-9
    )


def test_this_process_is_seen_on_the_card() -> None:
    torch.zeros(1, device=DEVICE)
    processes = gpus.processes()
    if processes is None:
        pytest.skip("nvidia-ml-py or the driver does not tell who computes here")
    if Path("/.dockerenv").exists():
        pytest.skip("a container's pids are not those that the driver knows")
    assert os.getpid() in [p["pid"] for p in processes]


def test_counters_of_throttling_are_read() -> None:
    first = watch.look(cuda=True)
    second = watch.look(cuda=True)
    if first.gpu is None:
        pytest.skip("nvidia-ml-py or the driver does not tell what held the card back")
    assert set(first.gpu) <= set(gpus.POLICIES.values())
    assert all(second.gpu[name] >= value for name, value in first.gpu.items())
