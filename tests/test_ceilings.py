"""The machine's own ceilings against a product and a copy that are timed by hand."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.meters.time import Limits
from bench.scenarios import ceilings
from bench.scenarios.base import Context
from bench.store.record import validate
from bench.training import Recipe
from tests.factories import make_record

LIMITS = Limits(
    warmup=2, min_samples=10, min_seconds=0.05, max_seconds=0.5, relative_error=0.05
)  # fmt: skip
SIDES = [32, 256]
COPY_MIB = 4
FACTOR = 4  # the machine may be busy with something else during one of the two


def context(folder: Path, dtype: torch.dtype = torch.float32, limits: Limits = LIMITS) -> Context:
    scenario = {"name": "ceilings", "sides": {"cpu": SIDES}, "copy_mib": {"cpu": COPY_MIB}}
    return Context(
        task=None,  # type: ignore[arg-type]
        build=None,  # type: ignore[arg-type]
        config={"scenario": scenario},
        recipe=Recipe(lr=0.0, adam_ratio=0.0, weight_decay=0.0, cooldown=0.0, clip=1.0),
        limits=limits,
        device=torch.device("cpu"),
        dtype=dtype,
        workdir=folder,
    )


def run(
    folder: Path, dtype: torch.dtype = torch.float32, limits: Limits = LIMITS
) -> dict[str, Any]:
    return ceilings.run(context(folder, dtype, limits))


def by_hand(call: Callable[[], object]) -> float:
    """Median seconds of a call."""
    samples = []
    for _ in range(20):
        begin = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples[5:])


def test_the_rates_are_those_of_a_stopwatch(tmp_path: Path) -> None:
    figures = run(tmp_path)["figures"]
    side = figures["matmul_side"]
    a, b = torch.randn(side, side), torch.randn(side, side)
    assert figures["matmul_by"] in ("torch", "onednn")
    product = 2 * side**3 / by_hand(lambda: a @ b)
    assert product / FACTOR < figures["matmul_flops_per_s"] < product * FACTOR
    source = torch.zeros(COPY_MIB << 20, dtype=torch.uint8)
    target = torch.ones_like(source)
    copied = 2 * (COPY_MIB << 20) / by_hand(lambda: target.copy_(source))
    assert copied / FACTOR < figures["copy_bytes_per_s"] < copied * FACTOR


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_product_is_in_the_dtype_of_the_cell(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    matmul = torch.matmul

    def watched(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        seen.update((a.dtype, b.dtype, out.dtype))
        return matmul(a, b, out=out)

    monkeypatch.setattr(torch, "matmul", watched)
    brief = Limits(warmup=0, min_samples=1, min_seconds=0, max_seconds=0.01, relative_error=1.0)
    assert run(tmp_path, dtype, brief)["figures"]["matmul_flops_per_s"] > 0
    assert seen == {dtype}


def test_the_faster_form_is_the_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def form(name: str, seconds: float) -> Callable[..., object]:
        def call(*_: torch.Tensor) -> None:
            called.append(name)
            time.sleep(seconds)

        return call

    forms = {"slow": form("slow", 0.02), "fast": form("fast", 0.002)}
    monkeypatch.setattr(ceilings, "_forms", lambda context: forms)
    figures = run(tmp_path)["figures"]
    assert figures["matmul_by"] == "fast"
    assert called.count("slow") == ceilings.TRIALS * len(SIDES)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
def test_torch_and_onednn_take_the_same_product(tmp_path: Path) -> None:
    a, b, c = (torch.randn(48, 48) for _ in range(3))
    forms = ceilings._forms(context(tmp_path))
    assert set(forms) == {"torch", "onednn"}
    forms["torch"](a, b, c)
    torch.testing.assert_close(c, a @ b)
    torch.testing.assert_close(forms["onednn"](a, b, c), a @ b.T)
    assert set(ceilings._forms(context(tmp_path, torch.bfloat16))) == {"torch"}


def test_the_record_holds_what_its_figures_are_made_of(tmp_path: Path) -> None:
    found = run(tmp_path)
    record = validate(make_record(scenario="ceilings", **found))
    figures, timing = record["figures"], record["timing"]
    assert figures["matmul_side"] in SIDES
    assert timing["items_per_call"] == 2 * figures["matmul_side"] ** 3
    assert timing["unit"] == "FLOPs"
    assert timing["median_s"] == pytest.approx(statistics.median(timing["samples_s"]))
    rate = timing["items_per_call"] / timing["median_s"]
    assert figures["matmul_flops_per_s"] == pytest.approx(rate)
    median = statistics.median(figures["copy_samples_s"])
    assert figures["copy_bytes_per_s"] == pytest.approx(2 * (COPY_MIB << 20) / median)


def test_too_few_samples_make_it_invalid_and_say_so(tmp_path: Path) -> None:
    hasty = Limits(warmup=0, min_samples=10**6, min_seconds=0, max_seconds=0.01, relative_error=0.1)
    validity = run(tmp_path, limits=hasty)["validity"]
    assert not validity["valid"]
    assert validity["reason"]
