"""Memory by phase, in a pass of its own that is not timed.

Which memory: parameters, gradients, the optimizer's state, what forward keeps for backward
(activations), the state that a sequence carries, and the most that all tensors needed at once. All
say what tensors need; what the process holds is in `bench.meters.process`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.allocator import METHODS, Phase, nbytes, run_phases


def tensors_in(state: object) -> Iterator[Tensor]:
    """Every tensor that a state holds: in lists, tuples, dictionaries and objects' attributes."""
    seen: set[int] = set()
    pending = [state]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, Mapping):
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
        elif hasattr(item, "__dict__") and not isinstance(item, type | nn.Module):
            pending += vars(item).values()


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and the tensors that modules keep beside them, such as packed weights.

    Gradients are not among them: they hang on the parameters.
    """
    for module in model.modules():
        yield from tensors_in(vars(module))


def peak_of(
    call: Callable[[], object],
    model: nn.Module,
    device: torch.device,
    others: Iterable[Tensor] = (),
    before: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Peak bytes of tensors while `call` runs, those of the model and `others` included.

    What `before` leaves alive, such as a state, counts as well; its own peak does not.
    """
    resident = [*tensors_of(model), *others]
    phases = run_phases({"before": before, "call": call}, resident, device)
    return peak_over([phases["call"]], model, device)


def peak_over(phases: Iterable[Phase], model: nn.Module, device: torch.device) -> dict[str, Any]:
    """What a record says of the tensors of a model over `phases`."""
    phases = list(phases)
    peaks = [phase.peak for phase in phases if phase.peak is not None]
    found = {
        "parameters_bytes": nbytes(model.parameters()),
        "peak_bytes": max(peaks) if len(peaks) == len(phases) else None,
        "method": METHODS[device.type],
    }
    reserved = [phase.reserved for phase in phases if phase.reserved is not None]
    return found | ({"reserved_bytes": max(reserved)} if reserved else {})
