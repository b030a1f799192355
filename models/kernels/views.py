"""Arrays on the memory of a module's parameters, for kernels that are called once a token."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import nn

T = TypeVar("T")


class Views(Generic[T]):
    """What `make` builds of a module's parameters, built anew where they lie elsewhere.

    An update in place needs nothing: the arrays are the parameters' own memory. A load may replace
    the parameters, and moving or casting a module moves all of them, so that one tells.
    """

    def __init__(self, module: nn.Module, make: Callable[[], T]) -> None:
        self._module, self._make = module, make
        self._built: tuple[T, nn.Parameter, int] | None = None
        module.register_load_state_dict_post_hook(self._forget)

    def _forget(self, *_: Any) -> None:
        self._built = None

    def __call__(self) -> T:
        """The views as they are now."""
        if self._built is not None:
            built, witness, pointer = self._built
            if witness.data_ptr() == pointer:
                return built
        built, witness = self._make(), next(self._module.parameters())
        self._built = built, witness, witness.data_ptr()
        return built

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the module has parameters of its own."""
        return {**self.__dict__, "_built": None}
