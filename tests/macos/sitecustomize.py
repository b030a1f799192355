"""A Mac as far as our own code can tell: put this folder on PYTHONPATH of a process.

In modules of `bench` and `models` `sys.platform` is darwin, `platform` speaks of Darwin, `os` has
no processor affinity, and nothing below /proc and /sys can be opened, listed or looked at, be it
through `pathlib`, `os`, `os.path`, `glob` or `shutil`.
Libraries see the machine as it is: torch, numba and psutil choose their files by it. What it
cannot imitate is what a Mac has and Linux has not, MPS above all.
"""

import builtins
import io
import os
import platform
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

OURS = ("bench", "models")
LINUX = ("/proc", "/sys")
# Of the standard library, on the way to a file; os.path is posixpath and takes from genericpath.
BETWEEN = (
    "codecs", "genericpath", "glob", "importlib", "os", "pathlib", "posixpath", "shutil",
)  # fmt: skip


class Stand:
    """A module with some of its names changed, and others gone."""

    def __init__(self, module: ModuleType, gone: tuple[str, ...] = (), **changed: Any) -> None:
        self.__dict__.update(changed)
        self._module, self._gone = module, gone

    def __getattr__(self, name: str) -> Any:
        if name in self._gone:
            raise AttributeError(f"module '{self._module.__name__}' has no attribute '{name}'")
        return getattr(self._module, name)


STANDS: dict[ModuleType, Stand] = {
    sys: Stand(sys, platform="darwin"),
    os: Stand(os, ("sched_getaffinity", "sched_setaffinity", "pidfd_open", "posix_fadvise")),
    platform: Stand(
        platform, system=lambda: "Darwin", release=lambda: "25.1.0", libc_ver=lambda: ("", ""),
        platform=lambda **_: "macOS-26.1-arm64", machine=lambda: "arm64", processor=lambda: "arm",
    ),
}  # fmt: skip


class Ours(Loader):
    """Runs a module of ours, then puts the stand-ins in the place of what it imported."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        for name, value in vars(module).copy().items():
            if isinstance(value, ModuleType) and value in STANDS:
                setattr(module, name, STANDS[value])


class Finder(MetaPathFinder):
    """Finds modules of ours as ever."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in OURS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Ours(spec.loader)
        return spec


def asked_by_us() -> bool:
    """Whether the first caller that is not the standard library's is a module of ours."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name not in BETWEEN:
            return name in OURS
        frame = frame.f_back
    return False


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any = ".", *more: Any, **options: Any) -> Any:
        below = isinstance(path, str | os.PathLike) and str(os.fspath(path)).startswith(LINUX)
        if below and asked_by_us():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *more, **options)

    return call


builtins.open = io.open = guarded(io.open)
for word in ("stat", "lstat", "readlink", "listdir", "scandir", "open"):
    setattr(os, word, guarded(getattr(os, word)))
sys.meta_path.insert(0, Finder())
