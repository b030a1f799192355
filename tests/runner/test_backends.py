"""The axis `backend`: which implementation a cell means, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bench import backends
from bench.errors import BadInput
from tests.runner.conftest import Done, here, kernels, python, records

MODEL: dict[str, Any] = {
    "name": "m", "backend": "torch",
    "kinds": {"language": {}, "classify": {"backend": "timm"}},
    "backends": {
        "transformers": {"needs": ["sys"], "install": "pip install transformers"},
        "fla": {"needs": ["no_such_module"], "install": "pip install fla", "fastest": ["cuda"]},
        "rwkv": {"needs": [], "kinds": ["language"], "scenarios": ["decode"]},
    },
}  # fmt: skip


def test_which_backends_are_meant() -> None:
    def chosen(model: dict[str, Any], kind: str, device: str, asked: str) -> list[str]:
        return backends.chosen(model, kind, device, "float32", asked)

    def fallback(model: dict[str, Any], asked: str = "auto") -> str | None:
        return backends.fallback(model, "language", "cuda", "float32", asked)

    assert backends.own(MODEL, "language") == "torch"
    assert backends.own(MODEL, "classify") == "timm"
    assert chosen(MODEL, "language", "cpu", "auto") == ["torch"]
    assert chosen(MODEL, "language", "cuda", "auto") == ["torch"]
    assert chosen(MODEL, "language", "cpu", "all") == ["torch", "transformers", "fla", "rwkv"]
    assert chosen(MODEL, "classify", "cpu", "all") == ["timm", "transformers", "fla"]
    installed = {**MODEL, "backends": {"fla": {"needs": ["sys"], "fastest": ["cuda"]}}}
    assert chosen(installed, "language", "cuda", "auto") == ["fla"]
    assert chosen(installed, "language", "cpu", "auto") == ["torch"]
    assert fallback(installed) is None
    assert fallback(MODEL) == (
        "fla, the fastest on cuda, is not installed (no_such_module; pip install fla): torch runs "
        "instead"
    )
    assert fallback(MODEL, "torch") is None


def test_auto_takes_what_fits_the_type() -> None:
    entry = {"needs": ["sys"], "fastest": ["cuda"], "dtypes": ["bfloat16", "float16"]}
    model = {**MODEL, "backends": {"fla": entry}}
    assert backends.chosen(model, "language", "cuda", "bfloat16", "auto") == ["fla"]
    assert backends.chosen(model, "language", "cuda", "float32", "auto") == ["torch"]
    assert backends.chosen(model, "language", "cuda", "float32", "fla") == ["fla"]
    assert backends.fallback(model, "language", "cuda", "bfloat16", "auto") is None
    assert backends.fallback(model, "language", "cuda", "float32", "auto") == (
        "fla, the fastest on cuda, is taken for bfloat16 and float16, not for float32: torch runs "
        "instead"
    )


def test_what_runs_instead_is_the_next_fastest() -> None:
    entries = {
        "fla": {"needs": ["no_such_module"], "install": "pip install fla", "fastest": ["cuda"]},
        "mamba_ssm": {"needs": ["sys"], "fastest": ["cuda"]},
    }
    model = {**MODEL, "backends": entries}
    assert backends.chosen(model, "language", "cuda", "bfloat16", "auto") == ["mamba_ssm"]
    assert backends.fallback(model, "language", "cuda", "bfloat16", "auto") == (
        "fla, the fastest on cuda, is not installed (no_such_module; pip install fla): mamba_ssm "
        "runs instead"
    )
    entries = dict(reversed(entries.items()))  # and where the faster is there, nothing is missed
    model = {**MODEL, "backends": entries}
    assert backends.fallback(model, "language", "cuda", "bfloat16", "auto") is None


def test_what_cannot_be() -> None:
    def refusal(name: str, scenario: str = "decode", kind: str = "language") -> str | None:
        return backends.refusal(MODEL, kind, name, scenario)

    assert refusal("torch") is refusal("transformers") is refusal("rwkv") is None
    assert refusal("fla") == "backend=fla: no_such_module is not installed; pip install fla"
    assert refusal("rwkv", "train") == "model=m by backend=rwkv cannot train; it can: decode"
    assert refusal("rwkv", kind="classify") == (
        "model=m has no backend=rwkv for tasks of kind 'classify'; it has: timm, transformers, fla"
    )
    with pytest.raises(BadInput, match="Did you mean 'transformers'"):
        backends.check_backend("transformer")


def run(results: Path, *words: str) -> Done:
    given = ("suite=smoke", "task=text", "threads=1", f"results={results}", *words)
    return here(*given)


def test_every_implementation_of_the_same_weights(results: Path) -> None:
    done = run(results, "model=rwkv,transformer", "backend=all", "scenario=decode,train")
    assert done.code == 0, done.err
    made = {(r["cell"]["model"], r["cell"]["backend"], r["cell"]["scenario"]): r
            for r in records(results)}  # fmt: skip
    ok = {key for key, record in made.items() if record["status"] == "ok"}
    both = {("transformer", b, s) for b in ("torch", "transformers") for s in ("decode", "train")}
    assert ok == both | {("rwkv", "torch", "decode"), ("rwkv", "torch", "train"),
                         ("rwkv", "rwkv", "decode")}  # fmt: skip
    assert made["rwkv", "rwkv", "train"]["reason"].startswith("model=rwkv by backend=rwkv cannot")
    theirs = made["rwkv", "rwkv", "decode"]
    assert kernels(theirs) == {"rwkv"}
    assert 0 <= theirs["agreement"]["difference"] <= theirs["agreement"]["allowed"]
    assert "agreement" not in made["rwkv", "torch", "decode"]
    assert kernels(made["transformer", "transformers", "decode"]) == {"sdpa"}
    for name in ("rwkv rwkv", "rwkv torch", "transformer transformers"):
        assert name in done.out
    assert "[" in done.out
    assert "rwkv · by rwkv · text · decode" in done.out
    # What `auto` means is the same cell.
    again = run(results, "model=rwkv", "scenario=decode")
    assert "1 of 1 cells are finished already" in again.out


LIAR = """
import torch

class Liar:
    def problem(self, device, dtype):
        return "it is Sunday" if dtype == torch.float64 else None

    def adopt(self, model):
        with torch.no_grad():
            model.lm_head.weight.add_(0.5)
        return model
"""


def test_a_backend_whose_logits_differ_is_reported_and_not_timed(
    results: Path, tmp_path: Path
) -> None:
    (tmp_path / "liar.py").write_text(LIAR)
    (tmp_path / "model").mkdir()
    yaml = (Path(__file__).resolve().parents[2] / "configs/model/rwkv.yaml").read_text()
    yaml = yaml.replace("models.backends.rwkv_package.RWKVPackage", "liar.Liar")
    (tmp_path / "model" / "mine.yaml").write_text(yaml.replace("name: rwkv\n", "name: mine\n"))
    done = python(
        "-m", "bench", f"hydra.searchpath=[{tmp_path}]", "allow_targets=[liar]", "model=mine",
        "suite=smoke", "task=text", "backend=rwkv", "scenario=decode", f"results={results}",
        PYTHONPATH=f"{Path(__file__).resolve().parents[2]}:{tmp_path}",
    )  # fmt: skip
    assert done.code == 1, done.err
    [made] = records(results)
    assert made["status"] == "failed"
    assert made["reason"].startswith("backend=rwkv: its logits differ by")
    assert made["agreement"]["difference"] > made["agreement"]["allowed"]
    assert "timing" not in made


def test_refused(results: Path) -> None:
    done = run(results, "model=rwkv", "backend=mamba-ssm", "scenario=decode")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "backend=mamba-ssm is unknown; allowed: auto, all, torch" in done.err
    given = ("model=rwkv", "backend=rwkv", "scenario=decode", "dtype=bfloat16")
    assert run(results, *given).code == 0
    [made] = records(results)
    assert made["status"] == "unsupported"
    assert made["reason"] == (
        "backend=rwkv: it runs here on a CPU in float32, not on cpu in bfloat16"
    )


WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "numba" or name.startswith("numba."):
            raise ImportError("No module named 'numba'")
sys.meta_path.insert(0, Hidden())
"""


def test_a_slow_fallback_is_told_once_and_recorded(results: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    root = str(Path(__file__).resolve().parents[2])
    done = python(
        "-m", "bench", "suite=smoke", "model=mamba", "task=text", "scenario=decode,prefill",
        f"results={results}", PYTHONPATH=f"{tmp_path}:{root}",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.count("warning: model=mamba: no fused kernel runs: numba cannot be") == 1
    for made in records(results):
        assert kernels(made) == {"torch"}
        assert "pip install numba" in made["cell"]["fallback"]


def test_python_of_these_tests_has_all_backends() -> None:
    assert not backends.lacking({"needs": ["transformers", "rwkv", "timm", "diffusers"]}), (
        sys.executable
    )
