"""Whether the fused kernels can run here, and which form runs. Imports no numba by itself."""

import functools

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

KERNELS = ("auto", "torch", "numba")
# RWKV-7's workspace is laid out when it is compiled, for heads of this many channels: a larger
# model runs torch's form.
MAX_HEAD = 64


@functools.cache
def numba_problem() -> str | None:
    """Why no fused kernel can run here; None where they can."""
    try:
        import models.kernels.compiled  # noqa: F401
    except ImportError as error:  # numba is absent, or refuses the installed numpy
        return f"numba cannot be imported ({error}); pip install numba"
    return None


def counted() -> bool:
    """Whether a mode looks at torch's operators: kernels that are called directly are none.

    A step of decoding then takes torch's form, so that its arithmetic and traffic are seen. As
    operators the kernels would be seen too, at ten microseconds a call.
    """
    return _get_current_dispatch_mode() is not None


def transformed() -> bool:
    """Whether torch.func is at work, or derivatives forward in time of the program.

    Of both the kernels know nothing: tangents would be zero without a word.
    """
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def fuses(x: torch.Tensor, *, inference: bool = False) -> bool:
    """Whether what torch's own operators could do to `x` in training is a fused kernel's.

    With `inference` also without gradients. Not while torch compiles, which fuses by itself.
    """
    return (
        not torch.compiler.is_compiling()
        and x.is_cpu
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() > 0
        and x.numel() > 0
        and (inference or torch.is_grad_enabled())
        and not counted()
        and not transformed()
        and numba_problem() is None
    )


def steps_fused(x: torch.Tensor, *kept: torch.Tensor) -> bool:
    """Whether a kernel may take a step: of one sequence, without gradients, in fp32 or fp64.

    x (B, D) is its input, `kept` what its layer carries, (B, ...).
    """
    return (
        x.is_cpu
        and x.dtype in (torch.float32, torch.float64)
        and all(t.shape[:1] == (1,) and t.dtype == x.dtype for t in (x, *kept))
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not counted()
        and numba_problem() is None
    )


def check_kernel(kernel: str, name: str = "", size: int = 0, limit: int = 0) -> None:
    """ValueError for a kernel that does not exist, is not installed or does not hold `size`."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}; allowed are {', '.join(KERNELS)}")
    if kernel != "numba":
        return
    problem = numba_problem()
    if problem is None and size > limit:
        problem = f"{name} is {size}, and it holds at most {limit}"
    if problem is not None:
        raise ValueError(f"kernel=numba: {problem}, or set kernel=auto or kernel=torch")


def choose_kernel(kernel: str, device: torch.device, dtype: torch.dtype, *, fits: bool) -> str:
    """The form that runs: "numba" or "torch".

    `dtype` is that of the recurrence; `fits` says whether the kernel holds the model's sizes.
    ValueError where numba was asked for and cannot run.
    """
    if kernel == "torch":
        return "torch"
    problem = _problem(device, dtype, fits=fits)
    if kernel == "numba" and problem is not None:
        raise ValueError(f"kernel=numba: {problem}; set kernel=auto or kernel=torch")
    return "numba" if problem is None else "torch"


def fallback(kernel: str, device: torch.device, dtype: torch.dtype, *, fits: bool) -> str | None:
    """Why kernel=auto takes torch's slower form on a CPU; None where it does not, or was asked."""
    if kernel != "auto" or device.type != "cpu":
        return None
    problem = _problem(device, dtype, fits=fits)
    return None if problem is None else f"no fused kernel runs: {problem}"


def _problem(device: torch.device, dtype: torch.dtype, *, fits: bool) -> str | None:
    if device.type != "cpu" or dtype not in (torch.float32, torch.float64):
        return f"it runs on a CPU in fp32 or fp64, not on {device} in {dtype}"
    if not fits:
        return "it does not compute a recurrence of these sizes"
    return numba_problem()
