"""Rivals that are no dependency: packages where they are installed, else checkouts of the user's.

Of a checkout that needs more than torch to be imported, a GPU's kernels for one, the single file
that holds the reference is loaded.
"""

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

from benchmarks.rows.row import NotGivenError, Setting


@dataclass(frozen=True)
class Rival:
    """A repository of GitHub, and the option by which its checkout is named."""

    option: str
    repository: str

    def root(self, setting: Setting) -> Path:
        """The checkout that was given."""
        if self.option not in setting.checkouts:
            raise NotGivenError(f"give --{self.option} PATH (github.com/{self.repository})")
        return setting.checkouts[self.option]

    def load(self, setting: Setting, file: str, stand_ins: Sequence[str] = ()) -> ModuleType:
        """`file` of the checkout as a module; imports of `stand_ins` find an empty one."""
        path = self.root(setting) / file
        if not path.is_file():
            raise NotGivenError(f"--{self.option} names no checkout with a file {path}")
        spec = importlib.util.spec_from_file_location(f"rival_{self.option}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module  # dataclasses look their module up
        try:
            with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in stand_ins}):
                spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            raise NotGivenError(f"{file} needs {error.name}: pip install {error.name}") from error
        return module


MAMBAPY = Rival("mambapy", "alxndrTL/mamba.py")
MAMBA_SSM = Rival("mamba-ssm", "state-spaces/mamba")
FLA = Rival("fla", "fla-org/flash-linear-attention")
NANOGPT = Rival("nanogpt", "karpathy/nanoGPT")
RIVALS = (MAMBAPY, MAMBA_SSM, FLA, NANOGPT)


def mambapy(setting: Setting) -> ModuleType:
    """mambapy's Mamba-1, of the checkout where one is given, else of the installed package."""
    if MAMBAPY.option in setting.checkouts:
        sys.path.insert(0, str(MAMBAPY.root(setting)))
    try:
        return importlib.import_module("mambapy.mamba")
    except ModuleNotFoundError as error:
        raise NotGivenError(
            f"pip install mambapy, or give --mambapy PATH (github.com/{MAMBAPY.repository})"
        ) from error


def revision(path: Path) -> str:
    """The commit that is checked out there, as far as git can tell."""
    command = ["git", "-C", str(path), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "of no known revision"
