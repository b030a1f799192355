"""Which GPU a record names, and what `device=auto` says where it passes one over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.machine import device

# Of two GPUs; without --id it names both, as the real tool does.
TOOL = """\
#!/bin/sh
for word in "$@"; do
  case $word in
    --id=1|--id=GPU-beef) echo "Tesla T4, 535.54, 15360 MiB"; exit;;
  esac
done
echo "NVIDIA A100, 535.54, 40960 MiB"
echo "Tesla T4, 535.54, 15360 MiB"
"""


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    for step in (1, 2):
        device.gpu.cache_clear()
        device.cuda_problem.cache_clear()
        if step == 1:
            yield


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "NVIDIA A100"),
        ("0", "NVIDIA A100"),
        ("1", "Tesla T4"),
        ("1,0", "Tesla T4"),
        ("GPU-beef", "Tesla T4"),
        ("", "NVIDIA A100"),
    ],
)
def test_the_gpu_that_cells_use_is_named(
    visible: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = device.gpu()
    assert found is not None
    assert found["name"] == name


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_passed_over_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "PROBE", "print('torch 9 is a CPU build')")
    assert device.resolve_device("auto") == "cpu"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "device=auto: cells run on the CPU, not on NVIDIA A100: torch 9 is a CPU build"
    assert device.resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"device=cuda is not there: torch 9 is a CPU build"):
        device.resolve_device("cuda")
    assert not capsys.readouterr().err


def test_no_gpu_is_no_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "gpu", lambda: None)
    monkeypatch.setattr(device, "cuda_problem", lambda: "no NVIDIA device is visible")
    assert device.resolve_device("auto") == "cpu"
    assert not capsys.readouterr().err


@pytest.mark.usefixtures("two_gpus")
def test_the_working_directory_does_not_answer_for_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asked.py").write_text("raise RuntimeError('not me')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(device, "PROBE", "import asked")
    assert device.cuda_problem() == (
        "torch could not be asked (ModuleNotFoundError: No module named 'asked')"
    )


@pytest.mark.usefixtures("two_gpus")
def test_a_probe_without_an_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(device, "PROBE_S", 0.2)
    assert device.cuda_problem() == "torch gave no answer in 0.2 s"


def test_the_probe_itself_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(device.PROBE, {})
    assert capsys.readouterr().out.startswith(("yes", "torch "))
