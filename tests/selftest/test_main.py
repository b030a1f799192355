"""The command: what it prints and writes, its exit codes, and the bad input that it refuses."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.selftest.__main__ import main
from bench.selftest.pool import Pool
from tests.selftest.pools import MACHINE, pool

FEW = "--comparisons=12"


def given(folder: Path, made: Pool, *words: str) -> list[str]:
    made.save(folder / "pool.json")
    return [
        f"--pool={folder / 'pool.json'}", f"--output={folder / 'out'}",
        f"--noise={folder / 'noise.json'}", "--live=0", "--seeds=0", FEW, *words,
    ]  # fmt: skip


def test_a_quiet_machine_meets_every_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"in turns": {"step": 0.5}, "apart": {"step": 0.6}}
    (tmp_path / "noise.json").write_text(json.dumps({"another machine": other}))
    assert main(given(tmp_path, pool(0.008, metrics=("step", "token")), "--comparisons=6")) == 0
    printed = capsys.readouterr().out
    assert "every target is met" in printed
    report = (tmp_path / "out" / "selftest.md").read_text()
    assert report.rstrip().endswith("every target is met.")
    for title in ("Noise between fresh processes", "The sequential rule", "Other rules"):
        assert title in report
    for rule in ("asv", "pyperf", "7% threshold"):
        assert rule in report
    rows = [line for line in report.splitlines() if line.startswith("| 10% slower")]
    assert {row.split("|")[2].strip() for row in rows} == {"any metric", "step", "token"}
    assert all("100.0%" in row for row in rows)
    kept = json.loads((tmp_path / "noise.json").read_text())
    assert kept.pop("another machine") == other
    ((machine, kinds),) = kept.items()
    assert machine == MACHINE, "that of the pool, wherever it is judged"
    assert set(kinds) == {"in turns", "apart"}
    for floors in kinds.values():
        assert set(floors) == {"step", "token"}
        assert all(0 < floor < 0.05 for floor in floors.values())


def test_a_slowdown_that_is_not_found_is_a_missed_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given(tmp_path, pool(0.005, inert=True))) == 1
    assert "5% on step: found in 0%, 80% promised" in capsys.readouterr().out
    assert "10% on step: found in 0%, 95% promised" in (tmp_path / "out/selftest.md").read_text()


def test_where_processes_differ_more_nothing_is_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(given(tmp_path, pool(0.1, inert=True)))
    out, err = capsys.readouterr()
    assert "step: processes differ by" in err
    assert "promised" not in out


def test_a_saved_pool_is_the_same_one(tmp_path: Path) -> None:
    made = pool(0.02, count=3)
    made.save(tmp_path / "deep" / "pool.json")
    assert Pool.load(tmp_path / "deep" / "pool.json") == made


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("--rounds=19", ["--rounds=19 is too small", "from 20"]),
        ("--comparisons=0", ["--comparisons=0 is too small", "from 1"]),
        ("--live=-1", ["--live=-1", "from 0"]),
        ("--seeds=-1", ["--seeds=-1", "from 0"]),
        ("--seeds=4", ["--seeds=4", "0, or from 5"]),
        ("--pool=/no/such/file", ["--pool=/no/such/file holds no pool"]),
        ("--output=/proc/none", ["/proc/none"]),
    ],
)
def test_bad_arguments(
    word: str, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given(tmp_path, pool(0.01, count=2)), word]) == 2
    refused(capsys.readouterr().err, parts)
    assert not (tmp_path / "noise.json").exists()


@pytest.mark.parametrize("word", ["--rounds=many", "--nothing", "extra"])
def test_words_that_are_no_arguments(word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code == 2


def raw(**changes: Any) -> dict[str, Any]:
    return {**asdict(pool(0.01, count=2)), **changes}


PAIR = raw()["pairs"]["step"]
POOLS = {
    "no JSON": ("{", "holds no pool"),
    "a list": ([], "holds no pool"),
    "no metric": (raw(pairs={}), "no metric"),
    "no pair": (raw(pairs={"step": []}), "fewer than 2 pairs of slowdown 0.0"),
    "one kind": (
        raw(pairs={"step": [p for p in PAIR if p["slowdown"] != 0.05]}), "pairs of slowdown 0.05",
    ),
    "no samples": (raw(pairs={"step": [*PAIR, {**PAIR[0], "plain": []}]}), "without samples"),
    "time 0": (raw(pairs={"step": [*PAIR, {**PAIR[0], "other": [0.0]}]}), "samples above 0"),
    "no environment": (raw(about={}), "environment"),
    "nothing about it": (raw(about=None), "holds no pool"),
    "no wall time": (raw(pairs={"step": [*PAIR, {**PAIR[0], "wall_s": None}]}), "holds no pool"),
    "endless": (raw(pairs={"step": [*PAIR, {**PAIR[0], "other": [1e308]}]}), "samples above 0"),
    "words": (raw(pairs={"step": [*PAIR, {**PAIR[0], "other": ["x"]}]}), "holds no pool"),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_a_file_that_is_no_pool(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = POOLS[name]
    words_given = given(tmp_path, pool(0.01, count=2))
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "pool.json").write_text(text)
    assert main(words_given) == 2
    refused(capsys.readouterr().err, [f"--pool={tmp_path / 'pool.json'}", words])


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"machine": 1}', '{"machine": {"apart": {"step": "x"}}}']
)
def test_a_noise_file_of_something_else_is_refused_and_kept(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise.json").write_text(content)
    assert main(given(tmp_path, pool(0.01, count=2))) == 2
    refused(capsys.readouterr().err, [f"'{tmp_path / 'noise.json'}' holds no floors"])
    assert (tmp_path / "noise.json").read_text() == content


def refused(said: str, parts: list[str]) -> None:
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    for part in parts:
        assert part in said
