"""A repository with two revisions of a make-believe bench, the second of which may be slower."""

import subprocess
from pathlib import Path

MAIN = """
import json
part = {"family": "f", "model": "fake", "size": "nano", "task": "text", "kind": "language",
        "scenario": "train", "seed": 0, "device": "cpu", "dtype": "float32", "threads": 1,
        "compile": False}
plan = [{**part, "state": "to run", "config": {"suite": {}}, "versions": {"suite": 1, "task": 1}}]
print("words before the document")
print(json.dumps({"plan": plan}))
"""
ERRORS = "class BadInput(ValueError): pass\n"
TIME = "def turn(): pass\n"
WORKER = """
import random
from time import sleep
from bench.errors import BadInput
from bench.meters import time
def run_cell(cell, workdir):
    behaviour, mean = {behaviour!r}, {mean}
    print("noise on the standard output")
    if behaviour == "refuse":
        raise BadInput("task.path=x is no file")
    if behaviour == "crash":
        raise SystemExit("the worker gave up")
    if behaviour == "fail":
        return {{"status": "failed", "reason": "NaN"}}
    level = mean * random.gauss(1, 0.005)
    samples = []
    if behaviour == "sleep in set-up":
        sleep(60)
    for _ in range(9 if behaviour != "endless" else 100_000):
        time.turn()
        if behaviour == "endless":
            sleep(0.01)
        if behaviour == "sleep":
            sleep(60)
        samples.append(level * random.gauss(1, 0.002))
    return {{"status": "ok", "timing": {{"samples_s": samples, "unit": "tokens"}}}}
"""


def git(root: Path, *arguments: str) -> None:
    names = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "-C", str(root), *names, *arguments], check=True, capture_output=True)


def write(root: Path, behaviour: str = "good", mean: float = 1.0) -> None:
    """The files of one revision."""
    package = root / "bench"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(MAIN)
    (package / "meters").mkdir(exist_ok=True)
    (package / "meters" / "__init__.py").write_text("")
    (package / "meters" / "time.py").write_text(TIME)
    (package / "errors.py").write_text(ERRORS)
    (package / "worker.py").write_text(WORKER.format(behaviour=behaviour, mean=mean))


def repository(root: Path) -> Path:
    """A repository whose tag `one` is a good revision; what follows is not committed."""
    root.mkdir()
    git(root, "init", "--quiet")
    write(root)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "one")
    git(root, "tag", "one")
    return root
