"""A Mac, as far as our own code can tell (tests/macos): what it lacks is missing, and no more."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner.conftest import ROOT, Done, python, records

MAC = str(ROOT / "tests" / "macos")


def bench(*words: str) -> Done:
    return python("-m", "bench", *words, PYTHONPATH=f"{MAC}:{ROOT}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("mac")
    words = ("scenario=train,decode,quality", "energy=true", "threads=1", f"results={folder}")
    done = bench("suite=smoke", "model=mamba", "task=text", *words)
    assert done.code == 0, done.err
    return records(folder)


def test_the_stand_in_is_one() -> None:
    """Our own code sees a Mac, a library the machine as it is."""
    lines = ["import sys, bench.machine.processor as p", "print(p.cpu_name(), p.cores() > 0)",
             "print(hasattr(p.os, 'sched_getaffinity'), sys.platform == p.sys.platform "
             "if hasattr(p, 'sys') else None)",
             "from bench.meters.process import peak_during, resident_bytes",
             "print(peak_during(print), resident_bytes() > 0)"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{MAC}:{ROOT}", "PATH": ""}, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["arm True", "False None", "None True"]


def test_cells_run_and_name_what_is_missing(made: list[dict]) -> None:
    measured = {r["cell"]["scenario"]: r for r in made if r["cell"]["model"] == "mamba"}
    assert set(measured) == {"train", "decode", "quality"}
    for record in measured.values():
        assert record["status"] == "ok", record["reason"]
        environment = record["environment"]
        assert environment["isolation"] == "fresh interpreter"
        assert environment["platform"].startswith("macOS")
        assert environment["allocator"] == {}
        for name in ("governor", "hugepages", "cpu_quota", "memory_limit_gib", "steal"):
            assert environment[name] is None, name
    for record in (measured["train"], measured["decode"]):
        assert record["memory"]["peak_bytes"] > record["memory"]["parameters_bytes"]
        assert record["memory"]["rss_peak_bytes"] is None
        assert record["memory"]["rss_start_bytes"] > 0
        assert record["energy"]["joules"] is None
        assert record["energy"]["reason"]


def test_a_memory_limit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = bench("suite=smoke", "model=mamba", "task=text", "scenario=train", "memory_limit_gib=4",
                 f"results={tmp_path}")  # fmt: skip
    assert done.code == 2
    assert "memory_limit_gib=4 works on Linux alone; leave it null here." in done.err


def test_mps_is_asked_of_torch() -> None:
    done = bench("device=mps", "plan=true")
    assert done.code == 2
    assert "device=mps is not there: torch" in done.err
    assert "Traceback" not in done.err


def test_lists_and_plans() -> None:
    for words in (("list",), ("suite=smoke", "plan=true")):
        done = bench(*words)
        assert done.code == 0, done.err
