"""Holds the floors of the house by reading the imports of every file.

Imports count wherever they stand, also within functions; those under `if TYPE_CHECKING` do not,
since they are no imports when the program runs.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("bench/**/*.py"), *ROOT.glob("models/**/*.py")])

# Whoever works inside the measured process, and those who count what it built.
TORCH = (
    "bench/tasks/", "bench/scenarios/", "bench/meters/", "bench/techniques/", "bench/training.py",
    "bench/worker.py", "bench/parameters.py", "bench/muon.py", "bench/sizes.py",
    "bench/matching.py",
    "bench/doctor.py", "bench/protocol.py", "bench/process/limits.py",
    "bench/machine/build.py", "bench/building.py", "bench/agreement.py",
)  # fmt: skip
HYDRA = (
    "bench/cli.py", "bench/overrides.py", "bench/config.py", "bench/defaults.py",
    "bench/building.py",
)  # fmt: skip
# What the store and the report may import of bench: each other, and the leaves.
LEAVES = (
    "bench.errors", "bench.arguments", "bench.console", "bench.constants", "bench.budgets",
)  # fmt: skip
READERS = ("bench.store", "bench.report", *LEAVES)


def imports(source: str) -> Iterator[str]:
    """Names of the modules that `source` imports, also by `import_module` with a plain string."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for statement in node.body:
                skipped |= set(ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from bench import tasks` imports bench.tasks
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func)
            argument = node.args[0]
            if name.endswith(("import_module", "__import__")) and isinstance(
                argument, ast.Constant
            ):
                yield str(argument.value)


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_reader_of_imports_sees_them() -> None:
    source = """
import torch.nn as nn
from bench import tasks
if typing.TYPE_CHECKING:
    import hydra
def late():
    from models.output import Output
    importlib.import_module("omegaconf")
"""
    assert sorted(imports(source)) == [
        "bench.tasks", "models.output.Output", "omegaconf", "torch.nn",
    ]  # fmt: skip
    assert not below("torchvision", "torch")


def test_there_are_files() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=place)
def test_floors(path: Path) -> None:
    name = place(path)
    found = list(imports(path.read_text(encoding="utf-8")))

    def named(*packages: str) -> list[str]:
        return [module for module in found if below(module, *packages)]

    if name.startswith("models/"):
        assert not named("bench"), "a model knows nothing of the bench"
        assert not named("hydra", "omegaconf"), "a model knows nothing of Hydra"
    else:
        assert not named("models"), "the bench knows models by _target_ alone"
        if not name.startswith(TORCH):
            assert not named("torch"), "torch belongs to the measured process"
        if name not in HYDRA:
            assert not named("hydra", "omegaconf"), f"Hydra is known to {', '.join(HYDRA)} alone"
    if name.startswith(("bench/report/", "bench/store/")):
        strangers = [module for module in named("bench") if not below(module, *READERS)]
        assert not strangers, "readers know the store alone"
    if name in [f"{leaf.replace('.', '/')}.py" for leaf in LEAVES]:
        assert not [module for module in named("bench") if not below(module, *LEAVES)], "a leaf"
    if name.startswith("bench/store/"):
        assert not named("bench.report"), "the store does not know its readers"


@pytest.mark.parametrize("name", ["doctor.py", "process/limits.py"])
def test_who_works_in_the_parent_too_imports_torch_when_asked_only(name: str) -> None:
    path = ROOT / "bench" / name
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        assert not any(below(module, "torch") for module in _direct(node)), "imported at the top"


def _direct(node: ast.stmt) -> list[str]:
    return list(imports(ast.unparse(node))) if isinstance(node, ast.Import | ast.ImportFrom) else []


@pytest.mark.parametrize(
    "module",
    [
        "bench",
        "bench.store",
        "bench.report.__main__",
        "bench.cli",
        "bench.prepare",
        "bench.shards.hub",
    ],
)
def test_no_torch_is_loaded(module: str) -> None:
    """What the text of the files cannot show: that no library brings torch along."""
    code = f"import sys, {module}; print(*sorted({{'torch', 'hydra'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
