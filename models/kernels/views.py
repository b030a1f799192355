"""Arrays on the memory of a module's parameters, for kernels that are called once a token."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

T = TypeVar("T")
_registered = 0  # parameters and modules that any module was given so far


def _count(*_: Any) -> None:
    global _registered
    _registered += 1


# Both are called where an attribute is set, so that a step has to compare one number.
register_module_parameter_registration_hook(_count)
register_module_module_registration_hook(_count)


class Views(Generic[T]):
    """What `make` builds of a module's parameters, built anew where they may lie elsewhere.

    An update in place needs nothing: the arrays are the parameters' own memory. Whatever is put in
    the place of a parameter or of a module inside is seen, and so is moving or casting, which moves
    all of them. Not seen is a new `data` of a single parameter.
    """

    def __init__(self, module: nn.Module, make: Callable[[], T]) -> None:
        self._module, self._make = module, make
        self._forget()

    def _forget(self) -> None:
        self._built: tuple[T, int, nn.Parameter, int] | None = None
        self._hooks: list[dict[int, Any]] = []

    def __call__(self) -> T:
        """The views as they are now."""
        if self._built is not None:
            built, registered, witness, pointer = self._built
            if registered == _registered and witness.data_ptr() == pointer:
                return built
        built, witness = self._make(), next(self._module.parameters())
        self._built = built, _registered, witness, witness.data_ptr()
        self._hooks = [
            hooks
            for inside in self._module.modules()
            for hooks in (inside._forward_hooks, inside._forward_pre_hooks)
        ]
        return built

    @property
    def hooked(self) -> bool:
        """Whether something wants to be told when a module inside, as it was viewed, is called."""
        return any(self._hooks)

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the module has parameters of its own."""
        return {**self.__dict__, "_built": None, "_hooks": []}
