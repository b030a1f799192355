"""Which form a model runs: what the kernels hold, what is refused, what is compiled ahead."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from models.backbones.gated_delta import GatedDeltaMixer
from models.backbones.mamba import Mamba
from models.backbones.mamba2 import Mamba2
from models.backbones.mamba3 import Mamba3
from models.backbones.rwkv4 import RWKV4
from models.backbones.rwkv7 import RWKV7
from models.kernels import warm
from models.kernels.available import MAX_HEAD, numba_problem
from tests.models.kernels import needs_numba

MAMBA = {"d_model": 16, "n_layers": 2, "d_inner": 24, "d_conv": 4, "dt_rank": None,
         "selective": True, "negative_eigenvalues": False, "norm_eps": 1e-5,
         "residual_init": "scaled"}  # fmt: skip
MAMBA2 = {"d_model": 16, "n_layers": 2, "nheads": 4, "headdim": 6, "d_state": 5, "ngroups": 1,
          "d_conv": 4, "chunk_size": 8, "negative_eigenvalues": False, "norm_eps": 1e-5,
          "residual_init": "scaled"}  # fmt: skip
MAMBA3 = {"d_model": 16, "n_layers": 2, "nheads": 4, "headdim": 6, "d_state": 8, "ngroups": 1,
          "rope_fraction": 0.5, "mimo_rank": 1, "chunk_size": 8, "norm_eps": 1e-5,
          "residual_init": "scaled"}  # fmt: skip
RWKV = {"n_layers": 2, "d_ff": 40, "decay_rank": 4, "rate_rank": 5, "value_rank": 3,
        "gate_rank": 6, "negative_eigenvalues": False, "chunk": 16}  # fmt: skip

OLDER = {"d_model": 32, "n_layers": 2, "d_ff": 40, "chunk": 16}


@needs_numba
@pytest.mark.parametrize(
    ("family", "sizes", "fits"),
    [
        (Mamba, MAMBA | {"d_state": 4}, True),
        (Mamba, MAMBA | {"d_state": 301}, True),
        (Mamba2, MAMBA2, True),
        (Mamba2, MAMBA2 | {"d_state": 301}, True),
        (Mamba3, MAMBA3, True),
        (Mamba, MAMBA | {"d_state": 4, "negative_eigenvalues": True}, True),
        (Mamba2, MAMBA2 | {"negative_eigenvalues": True}, True),
        (RWKV4, OLDER, True),
        (RWKV7, RWKV | {"d_model": 32, "head_size": 16}, True),
        (RWKV7, RWKV | {"d_model": MAX_HEAD + 2, "head_size": MAX_HEAD + 2}, False),
    ],
)
def test_a_model_runs_the_kernel_that_holds_it(family: type, sizes: dict, fits: bool) -> None:
    if not fits:
        with pytest.raises(ValueError, match=f"holds at most {MAX_HEAD}"):
            family(**sizes, kernel="numba")
    torch.manual_seed(0)
    model = family(**sizes, kernel="auto")
    assert model.kernel_used == ("numba" if fits else "torch")
    plain = family(**sizes, kernel="torch")
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 37, sizes["d_model"])
    ours, theirs = (m(x)[0] for m in (model, plain))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        scale = max(1.0, other.grad.abs().max().item())
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        (Mamba, MAMBA | {"d_state": 4}),
        (Mamba2, MAMBA2),
        (Mamba3, MAMBA3),
        (RWKV4, OLDER),
        (RWKV7, RWKV | {"d_model": 32, "head_size": 16}),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(family: type, sizes: dict) -> None:
    with pytest.raises(ValueError, match="kernel is 'cuda'; allowed are auto, torch, numba"):
        family(**sizes, kernel="cuda")
    if numba_problem() is not None:
        with pytest.raises(ValueError, match="pip install numba"):
            family(**sizes, kernel="numba")
        return
    model = family(**sizes, kernel="numba").to("meta")
    with pytest.raises(ValueError, match="not on meta in torch"):
        _ = model.kernel_used


@needs_numba
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Mamba3(**MAMBA3, kernel="auto"), None),
        (lambda: Mamba3(**MAMBA3, kernel="torch"), None),
        (lambda: Mamba3(**MAMBA3 | {"mimo_rank": 2}, kernel="auto"), "does not compute"),
        (lambda: delta(head_v_dim=6), "does not compute"),
        (lambda: delta(head_v_dim=8), None),
    ],
)
def test_the_slower_form_is_told(make: Callable[[], nn.Module], why: str | None) -> None:
    notes = [getattr(module, "kernel_fallback", None) for module in make().modules()]
    told = {note for note in notes if note}
    assert len(told) == (why is not None)
    assert all(why in note for note in told)


def delta(head_v_dim: int) -> GatedDeltaMixer:
    return GatedDeltaMixer(
        d_model=16, num_k_heads=2, num_v_heads=4, head_k_dim=8, head_v_dim=head_v_dim,
        conv_kernel_size=4, chunk_size=8, negative_eigenvalues=False, norm_eps=1e-5, kernel="auto",
        residual_init="zero", n_layers=2,
    )  # fmt: skip


@needs_numba
def test_the_kernels_leave_torch_its_threads() -> None:
    """OpenMP gave torch those of numba, where torch had been told fewer."""
    lines = [
        "import torch",
        "torch.set_num_threads(1)",
        "from models.kernels import causal_conv",
        "causal_conv.warm()",
        "print(torch.get_num_threads())",
    ]
    environment = os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=300,
        env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1"]


def test_all_kernels_can_be_compiled_ahead(capsys: pytest.CaptureFixture[str]) -> None:
    assert warm.main() == 0
    out, err = capsys.readouterr()
    if numba_problem() is not None:
        assert "pip install numba" in err
        return
    assert sorted(line.partition(":")[0] for line in out.splitlines()) == sorted(warm.MODULES)
    folder = Path(warm.__file__).parent
    kernels = {path.stem for path in folder.glob("*.py") if "@jit" in path.read_text()}
    inside = {"tile", "layout"}  # compiled into those that call them
    assert kernels - inside == set(warm.MODULES)


@needs_numba
def test_the_fused_recurrence_costs_what_a_step_costs() -> None:
    fused = RWKV7(**RWKV, d_model=32, head_size=16, kernel="numba")
    chunked = RWKV7(**RWKV, d_model=32, head_size=16, kernel="torch")
    assert fused.flops(2, 64) == 64 * fused.flops(2, 1)
    assert fused.flops(2, 1) == chunked.flops(2, 1)
    assert fused.flops(2, 64) < chunked.flops(2, 64)
