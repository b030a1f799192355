"""What kernels that are called once a token read of a module.

They compute what its parameters say, so they run while it is the module that was made: not where a
part of it was adapted (LoRA), parametrised, exchanged for another kind or hooked.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

Array: TypeAlias = np.ndarray[Any, Any]
Pair: TypeAlias = tuple[Array, Array]
T = TypeVar("T")
_registered = 0  # parameters and modules that any module was given so far


def _count(*_: Any) -> None:
    global _registered
    _registered += 1


# Both are called where an attribute is set, so that a step has to compare one number.
register_module_parameter_registration_hook(_count)
register_module_module_registration_hook(_count)


def _form(module: nn.Module) -> tuple[list[tuple[str, type]], list[str]]:
    """Kinds of all modules inside by name, and the names of their parameters."""
    kinds = [(name, type(inside)) for name, inside in module.named_modules()]
    return kinds, [name for name, _ in module.named_parameters()]


class Views(Generic[T]):
    """What `make` builds of a module's parameters, built anew where one of them lies elsewhere.

    To be made when the module is complete. Arrays on the parameters' own memory need no more;
    where `make` copies, `copies` has it built anew after an update in place too. What is no
    parameter (an epsilon, a number of experts, a `forward` that an instance was given) is read
    when it is built, and not looked at again.
    """

    def __init__(self, module: nn.Module, make: Callable[[], T], *, copies: bool = False) -> None:
        self._module, self._make, self._copies = module, make, copies
        self._form = _form(module)
        self._forget()

    def _forget(self) -> None:
        self._seen = -1
        self._built: T | None = None
        self._slots: list[tuple[dict[str, Any], str]] = []
        self._where: list[int] = []
        self._hooks: list[dict[int, Any]] = []

    def __call__(self) -> T | None:
        """The views as they are now; None where the module is not the one that was made."""
        if self._seen != _registered or self._where != self._look():
            self._build()
        return None if any(self._hooks) else self._built

    def _look(self) -> list[int]:
        where = [held[name].data_ptr() for held, name in self._slots]
        if self._copies:
            where += [held[name]._version for held, name in self._slots]
        return where

    def _build(self) -> None:
        self._forget()
        self._seen = _registered
        inside = list(self._module.modules())
        self._slots = [
            (m._parameters, n) for m in inside for n, p in m._parameters.items() if p is not None
        ]
        self._where = self._look()
        self._hooks = [h for m in inside for h in (m._forward_hooks, m._forward_pre_hooks)]
        as_made = _form(self._module) == self._form
        if as_made and not any("forward" in vars(m) for m in inside):
            self._built = self._make()

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the module has parameters of its own."""
        return {n: getattr(self, n) for n in ("_module", "_make", "_copies", "_form")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Nothing is built yet."""
        self.__dict__.update(state)
        self._forget()
