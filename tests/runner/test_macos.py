"""A Mac, as far as our own code can tell (tests/macos): what it lacks is missing, and no more."""

import glob
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.runner.conftest import ROOT, Done, python, records

MAC = str(ROOT / "tests" / "macos")


def bench(*words: str) -> Done:
    return python("-m", "bench", *words, PYTHONPATH=f"{MAC}:{ROOT}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("mac")
    words = ("scenario=train,decode,quality", "energy=true", "threads=1", f"results={folder}")
    done = bench("suite=smoke", "suite.baselines=false", "model=mamba", "task=text", *words)
    assert done.code == 0, done.err
    return records(folder)


QUESTIONS = [
    "os.path.exists('/proc/self/status')", "os.path.isfile('/proc/self/status')",
    "os.path.isdir('/sys')", "os.path.lexists('/proc/self')", "bool(glob.glob('/proc/*'))",
    "bool(list(os.walk('/proc')))", "bool(shutil.which('/proc/self/exe'))",
    "pathlib.Path('/proc/self').exists()",
]  # fmt: skip
CODE = f"""
import glob, os, pathlib, shutil, sys
import bench.machine.device as device, bench.machine.processor as processor
from bench.meters.process import peak_during, resident_bytes
ours = {{**vars(device), "glob": glob, "os": os, "pathlib": pathlib, "shutil": shutil}}
print(device.sys.platform, processor.cpu_name(), processor.cores() > 0)
print(hasattr(processor.os, "sched_getaffinity"), peak_during(print), resident_bytes() > 0)
print(*(eval(question, ours) for question in {QUESTIONS}))
print(sys.platform, *(eval(question) for question in {QUESTIONS}))
"""


def test_the_stand_in_is_one() -> None:
    """Our own code sees a Mac, whatever way it asks; a library sees the machine as it is."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{MAC}:{ROOT}", "PATH": ""}, timeout=120,
    )  # fmt: skip
    by = {"glob": glob, "os": os, "pathlib": pathlib, "shutil": shutil}
    there = [sys.platform, *(eval(question, by) for question in QUESTIONS)]
    assert done.stdout.splitlines() == [
        "darwin arm True",
        "False None True",
        " ".join(["False"] * len(QUESTIONS)),
        " ".join(map(str, there)),
    ]


def test_cells_run_and_name_what_is_missing(made: list[dict]) -> None:
    measured = {r["cell"]["scenario"]: r for r in made}
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


def test_a_memory_limit_is_refused_in_one_sentence(tmp_path: pathlib.Path) -> None:
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
