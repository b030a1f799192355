"""What a device cannot execute is one sentence: CUDA graphs, kernels of attention, libraries."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.checks import check_scalar, compile_refusal
from bench.cli import main
from tests.runner.conftest import Done, here, kernels, python, records


def run(results: Path, *words: str) -> Done:
    given = ("suite=smoke", "task=text", "device=cpu", "threads=1", f"results={results}", *words)
    return here(*given)


def test_modes_of_compiling() -> None:
    assert check_scalar("compile", "True") is True
    assert check_scalar("compile", "reduce-overhead") == "reduce-overhead"
    assert compile_refusal("reduce-overhead", "cuda") is None
    assert compile_refusal(True, "cpu") is compile_refusal(False, "cpu") is None
    assert compile_refusal("max-autotune-no-cudagraphs", "cpu") is None
    known = set(torch._inductor.list_mode_options())
    assert {"reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"} <= known


def test_cuda_graphs_are_refused_on_a_cpu(results: Path) -> None:
    done = run(results, "model=transformer", "scenario=train", "compile=reduce-overhead,false")
    assert done.code == 0, done.err
    made = {record["cell"]["compile"]: record for record in records(results)}
    assert made[False]["status"] == "ok"
    assert made["reduce-overhead"]["status"] == "unsupported"
    assert made["reduce-overhead"]["reason"] == (
        "compile=reduce-overhead records CUDA graphs, which device=cpu has not; "
        "allowed there: true, max-autotune-no-cudagraphs"
    )


def test_attention_by_a_kernel(results: Path) -> None:
    given = ("model=transformer", "scenario=prefill")
    wanted = "model.backbone.attention=sdpa_flash,sdpa_efficient"
    done = run(results, *given, wanted)
    assert done.code == 0, done.err
    made = {kernel: record for record in records(results) for kernel in kernels(record)}
    assert made["sdpa_flash"]["status"] == "ok"
    assert made["sdpa_efficient"]["status"] == "unsupported"
    assert made["sdpa_efficient"]["reason"] == (
        "attention=sdpa_efficient on cpu in float32: it runs on CUDA alone; use attention=sdpa"
    )


@pytest.mark.parametrize(
    ("model", "backend", "cure"),
    [
        ("mamba2", "mamba_ssm", "pip install --no-build-isolation mamba-ssm causal-conv1d"),
        ("rwkv", "fla", 'pip install "flash-linear-attention>=0.6"'),
    ],
)
def test_a_library_that_is_not_installed(
    results: Path,
    model: str,
    backend: str,
    cure: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find = importlib.util.find_spec

    def hidden(name: str, *more: str) -> Any:
        return None if name == backend else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    code = main(["suite=smoke", "task=text", "device=cpu", f"results={results}",
                 f"model={model}", f"backend={backend}", "scenario=prefill"])  # fmt: skip
    said = capsys.readouterr().err
    assert (code, len(said.splitlines())) == (2, 1)
    assert f"backend={backend}: {backend}" in said
    assert f"is not installed; {cure}" in said
    assert not records(results)


def test_a_library_that_cannot_run_on_this_device(results: Path, tmp_path: Path) -> None:
    (tmp_path / "fla").mkdir()
    (tmp_path / "fla" / "__init__.py").touch()
    root = str(Path(__file__).resolve().parents[2])
    done = python(
        "-m", "bench", "suite=smoke", "model=rwkv", "task=text", "device=cpu", "backend=fla",
        "scenario=prefill", f"results={results}", PYTHONPATH=f"{tmp_path}:{root}",
    )  # fmt: skip
    assert done.code == 0, done.err
    [made] = records(results)
    assert made["status"] == "unsupported"
    assert made["reason"] == (
        "backend=fla: it runs on CUDA in float32 or bfloat16 or float16, not on cpu in float32"
    )
