"""A repository with commits that change nothing, records of them, and what `history` says."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.__main__ import main
from bench.store import Record, Store
from tests.factories import make_record, quality

STEP = "time of a call"
COUNT = 30  # commits of the repository that tests share


def git(repo: Path, *arguments: str) -> str:
    """Output of git in the repository."""
    command = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@example.org",
               "-c", "commit.gpgsign=false", *arguments]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder: Path, count: int) -> list[str]:
    """The hashes of `count` commits of a new repository, oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return [commit(folder, f"change {number}") for number in range(count)]


def commit(folder: Path, subject: str) -> str:
    git(folder, "commit", "--quiet", "--allow-empty", "--message", subject)
    return git(folder, "rev-parse", "HEAD")


def at(commit: str | None, made: Record, *, dirty: bool = False) -> Record:
    """The record as one of that commit."""
    code = {**made["code"], "commit": commit, "dirty": dirty}
    return {**made, "code": code}  # type: ignore[typeddict-item,return-value]


def step(commit: str, level: float, *, layout: str = "a", **changes: Any) -> Record:
    """A training step of `level` seconds in one process; `changes` as of `make_record`."""
    made = make_record(scenario="train", timing={"samples_s": [level] * 5}, **changes)
    made["environment"]["layout"] = layout
    return at(commit, made)


def scored(commit: str, value: float, seed: int = 0, **changes: Any) -> Record:
    """A score in bits per byte."""
    made = make_record(scenario="quality", seed=seed, quality=quality(value=value), **changes)
    return at(commit, made)


def levels(
    seed: int, changes: Mapping[int, float], count: int, sigma: float = 0.005
) -> list[float]:
    """20 ms with noise, times each factor of `changes` from its place on."""
    z = np.random.default_rng(seed).normal(np.log(0.02), sigma, count)
    for place, factor in changes.items():
        z[place:] += np.log(factor)
    return [float(level) for level in np.exp(z)]


def write(folder: Path, records: Sequence[Record]) -> Path:
    """A results folder."""
    store = Store(folder)
    for record in records:
        store.write(record)
    return folder


def steps(commits: list[str], values: list[float], **changes: object) -> list[Record]:
    return [step(name, value, **changes) for name, value in zip(commits, values, strict=True)]


def told(
    folder: Path, records: list[Record], repo: Path, *options: str, plots: bool = False
) -> tuple[int, dict[str, dict[str, object]], list[dict[str, object]]]:
    """Exit code, findings by metric and its rival, and changes of the first noisy series."""
    results = write(folder / "results", records)
    file = folder / "history.json"
    given = ["history", str(results), f"--repo={repo}", f"--json={file}", *options]
    code = main(given if plots else [*given, "--no-plots"])
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["exit_code"] == code
    changes = [change for one in document["series"] if one["unit"] != "exact"
               for change in one["changes"]]  # fmt: skip
    return code, {_name(finding): finding for finding in document["findings"]}, changes


def _name(finding: dict[str, str]) -> str:
    return " ".join(filter(None, [finding["metric"], finding["against"], finding["at"]]))
