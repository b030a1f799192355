"""What a history says of its newest commit alone, and under which names."""

import json
import re
from pathlib import Path

import pytest

from bench.report.__main__ import main
from bench.report.compare.cells import name_of
from bench.report.compare.verdict import EXIT_CODES
from tests.factories import make_record
from tests.report.history.commits import (
    COUNT,
    STEP,
    at,
    commit,
    levels,
    repository,
    step,
    steps,
    told,
    write,
)


def test_what_an_old_commit_did_is_not_told_again(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = repo
    newest = steps(commits[:11], levels(1, {}, 11), model="rwkv")
    slower = steps(commits[:9], levels(0, {8: 1.1}, 9))
    moved = [step(commits[0], 0.02, model="moe"), step(commits[8], 0.02, model="moe", machine="b")]
    failed = make_record(scenario="train", model="mamba", status="failed", reason="NaN")
    broken = [step(commits[0], 0.02, model="mamba"), at(commits[8], failed)]
    for place, old in enumerate((slower, moved, broken)):
        assert told(tmp_path / f"{place} before", old, folder)[0] in (10, 11, 13)
        assert told(tmp_path / f"{place} after", [*old, *newest], folder)[0] == 0
    last = f"last at {commits[8][:7]}"
    capsys.readouterr()
    told(tmp_path / "shown", [*slower, *newest], folder)
    printed = capsys.readouterr().out
    assert f"so not held against the one before: transformer ({last})." in printed
    assert re.search(r"^— +transformer +time of a call", printed, re.M)


def test_what_came_since_the_pinned_release_is_told_until_it_is_measured_again(
    repo: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = repo
    newest = steps(commits[:11], levels(1, {}, 11), model="rwkv")
    old = steps(commits[:9], levels(0, {4: 1.1}, 9))
    code, _, _ = told(tmp_path, [*old, *newest], folder, f"--pinned={commits[3]}")
    assert code == EXIT_CODES["slower"]
    found = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))["findings"]
    (pinned,) = [f for f in found if (f["verdict"], f["against"]) == ("slower", "pinned")]
    assert pinned["reason"].endswith(f"; last measured at {commits[8][:7]}")


def test_a_commit_of_which_every_record_failed_is_the_newest(
    repo: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = repo
    failed = make_record(scenario="train", model="mamba", status="failed", reason="NaN")
    records = [*steps(commits[:9], levels(0, {8: 1.1}, 9)), at(commits[9], failed)]
    assert told(tmp_path, records, folder)[0] == 0  # the commit before got slower, not this one


def test_a_commit_is_told_from_uncommitted_changes_upon_it(
    repo: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, commits = repo
    name = commits[3]
    records = [*steps(commits[:8], levels(0, {}, 8)), at(name, step(name, 0.02), dirty=True)]
    for place, text in enumerate((name, name[:9], name[:7])):
        _, found, _ = told(tmp_path / str(place), records, folder, f"--pinned={text}")
        which = f"the pinned {text}" + (f" ({name[:7]})" if text != name[:7] else "")
        assert f" against {which}: " in str(found[f"{STEP} pinned"]["reason"])
    results = write(tmp_path / "results", records)
    monkeypatch.chdir(tmp_path)  # no repository, which knows commits by some of their letters
    given = ["history", str(results), "--no-plots", "--fail-on=none"]
    assert [main([*given, f"--pinned={text}"]) for text in (name, name[:7])] == [0, 0]
    assert main([*given, f"--pinned={name[:7]}+"]) == 0
    capsys.readouterr()
    assert main([*given, f"--pinned={name[:9]}"]) == 2
    assert f"may be any of {name}, {name}+" in capsys.readouterr().err


def test_what_is_exported_is_one_figure_a_metric(
    repo: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {15: 1.1, 22: 0.9}, COUNT))
    files = [tmp_path / "bencher.json", tmp_path / "action.json"]
    flags = [f"--bencher={files[0]}", f"--benchmark-json={files[1]}", "--pinned=v1"]
    _, found, changes = told(tmp_path, records, folder, *flags)
    assert len(changes) == 2
    (measures,) = json.loads(files[0].read_text()).values()
    assert set(measures) == {"latency", "parameters", "active-parameters"}
    assert measures["latency"]["value"] == pytest.approx(1e9 * found[f"{STEP} base"]["head"])
    entries = [entry["name"].rpartition(", ")[2] for entry in json.loads(files[1].read_text())]
    assert sorted(entries) == ["active parameters", "parameters", STEP]


def test_a_subject_is_printed_with_its_brackets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "repo"
    first, *_ = repository(folder, 1)
    second = commit(folder, "[ci] no [/cache]")
    records = [step(first, 0.02), step(second, 0.02)]
    for record, size in zip(records, (4000, 5000), strict=True):
        record["memory"] = {"parameters_bytes": size}
    told(tmp_path, records, folder)
    printed = capsys.readouterr().out
    assert f"changed: {name_of(records[0])}, parameter bytes: +25.0% at {second[:7]}" in printed
    assert printed.count("[ci] no [/cache]") == 2  # in the sheet, and in the sentence
