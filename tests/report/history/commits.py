"""A repository with commits that change nothing, and records of them."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.store import Record, Store
from tests.factories import make_record, quality

STEP = "time of a call"


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
