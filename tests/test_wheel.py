"""The wheel holds all that a run needs, and runs where the working directory is someone else's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
ROOT = Path(__file__).resolve().parents[1]


def run(*words: str, cwd: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        words, cwd=cwd, env={**kept, **more}, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_the_wheel_runs_beside_foreign_folders(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    source = tmp_path / "source"  # building leaves folders behind
    source.mkdir()
    for name in ("bench", "models", "configs", "pyproject.toml", "README.md", "LICENSE"):
        copied = run("cp", "-r", str(ROOT / name), str(source), cwd=tmp_path)
        assert copied.returncode == 0, copied.stderr
    options = ["--no-deps", "--no-build-isolation", "-w", "dist", str(source)]
    made = run(*pip, "wheel", *options, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("dist/*.whl")
    site = tmp_path / "site"
    done = run(*pip, "install", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = (".yaml", ".safetensors", ".json")
    for folder in ("bench", "models", "configs"):
        held = {
            p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.suffix in (".py", *data)
        }
        assert held <= {p.relative_to(site) for p in (site / folder).rglob("*")}

    foreign = tmp_path / "foreign"
    (foreign / "configs" / "model").mkdir(parents=True)
    (foreign / "models").mkdir()
    (foreign / "models" / "__init__.py").write_text("raise SystemExit('the wrong models')")
    script, path = str(site / "bin" / "archbench"), {"PYTHONPATH": str(site)}
    listed = run(sys.executable, script, "list", cwd=foreign, **path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "RWKV-7" in listed.stdout
    # Without kernels of numba, which every place compiles anew for half a minute.
    cell = ["suite=smoke", "model=timm", "task=digits", "scenario=train", "threads=1"]
    done = run(sys.executable, script, *cell, "results=out", cwd=foreign, **path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(foreign.glob("out/records/*.json"))) == 1
    refused = run(sys.executable, "-m", "bench", *cell, cwd=foreign, **path)
    assert refused.returncode == 2
    assert "run the command `archbench`" in refused.stderr
