"""The command: what it says of made-up histories, its exit codes, files and figures."""

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from bench.report.__main__ import main
from bench.report.compare.cells import name_of
from bench.report.compare.metrics import of_cell
from bench.report.compare.verdict import EXIT_CODES
from tests.factories import make_record
from tests.report.history.commits import COUNT, STEP, at, levels, scored, step, steps, told, write


def test_a_step_of_five_percent_is_a_change_of_its_commit(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {20: 1.05}, COUNT))
    code, found, (change,) = told(tmp_path, records, folder, "--pinned=v1")
    assert code == EXIT_CODES["slower"]
    assert change["commit"] == commits[20]
    assert change["size"] == pytest.approx(0.05, abs=0.01)
    assert (change["verdict"], change["lasting"]) == ("slower", True)
    assert found[f"{STEP} change {commits[20][:7]}"]["verdict"] == "slower"
    pinned = found[f"{STEP} pinned"]
    assert pinned["verdict"] == "slower"
    assert pinned["ratio"] == pytest.approx(1.05, abs=0.01)
    assert found[f"{STEP} base"]["verdict"] == "same"
    printed = capsys.readouterr().out
    assert "change 20" in printed
    assert "All cells" in printed


def test_what_was_undone_or_released_does_not_fail(
    repo: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = repo
    undone = steps(commits, levels(1, {12: 1.1, 20: 1 / 1.1}, COUNT))
    code, found, changes = told(tmp_path / "undone", undone, folder, "--pinned=v1")
    assert [change["commit"] for change in changes] == [commits[12], commits[20]]
    assert code == 0
    at_change = found[f"{STEP} change {commits[12][:7]}"]
    assert at_change["verdict"] == "same"
    assert "undone since" in str(at_change["reason"])
    released = steps(commits, levels(1, {6: 1.1}, COUNT))
    assert told(tmp_path / "released", released, folder, "--pinned=v1")[0] == 0
    assert told(tmp_path / "unpinned", released, folder)[0] == EXIT_CODES["slower"]


def test_faster_is_told_and_does_not_fail(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {20: 0.9}, COUNT))
    assert told(tmp_path / "a", records, folder)[0] == 0
    code, _, _ = told(tmp_path / "b", records, folder, "--fail-on=faster")
    assert code == EXIT_CODES["faster"]


def test_creep_is_found_where_no_step_is(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    drift = dict.fromkeys(range(2, 13), 1.003)  # each step far below the floor of 2 %
    records = steps(commits[8:21], levels(3, drift, 13, sigma=0.0005))
    code, found, changes = told(tmp_path, records, folder, "--pinned=v1")
    assert changes == []
    assert found[f"{STEP} base"]["verdict"] == "same"
    pinned = found[f"{STEP} pinned"]
    assert (pinned["verdict"], code) == ("slower", EXIT_CODES["slower"])
    # The mean of five commits at the end, 7 to 11 steps after the two up to the pinned one.
    assert pinned["ratio"] == pytest.approx(1.003**9, abs=0.001)


def test_the_last_commit_alone_is_held_against_the_previous(
    repo: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {COUNT - 1: 1.1}, COUNT))
    code, found, changes = told(tmp_path, records, folder)
    assert changes == []  # one value is no level yet
    assert (found[f"{STEP} base"]["verdict"], code) == ("slower", EXIT_CODES["slower"])
    assert found[f"{STEP} base"]["ratio"] == pytest.approx(1.1, abs=0.03)


def test_floors_of_this_machine_are_used(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {20: 1.05}, COUNT))
    machine = records[0]["environment"]["machine_key"]
    floors = {machine: {"apart": {of_cell(name_of(records[0]), STEP): 0.3}}}
    (tmp_path / "noise.json").write_text(json.dumps(floors))
    code, _, changes = told(tmp_path, records, folder, f"--noise={tmp_path / 'noise.json'}")
    assert (code, changes) == (0, [])


def test_scores_and_exact_figures(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    noise = [level / 0.02 for level in levels(5, {}, COUNT, sigma=0.001)]
    records = [scored(name, 2.0 * one + (0.05 if place >= 15 else 0.0))
               for place, (name, one) in enumerate(zip(commits, noise, strict=True))]  # fmt: skip
    for place, record in enumerate(records):
        record["memory"] = {"parameters_bytes": 4000 if place < 3 else 5000}
    code, found, (change,) = told(tmp_path, records, folder, "--pinned=v1")
    assert (change["commit"], change["verdict"]) == (commits[15], "worse")
    assert code == EXIT_CODES["worse"]
    assert found["parameter bytes base"]["verdict"] == "same"
    assert f"parameter bytes change {commits[3][:7]}" not in found  # released with v1
    assert told(tmp_path / "all", records, folder)[1][
        f"parameter bytes change {commits[3][:7]}"]["verdict"] == "changed"  # fmt: skip


@pytest.mark.parametrize(("others", "verdict"), [(0, "worse"), (1, "ambiguous")])
def test_scores_of_few_commits_are_corrected_over_all_of_them(
    repo: tuple[Path, list[str]], tmp_path: Path, others: int, verdict: str
) -> None:
    folder, commits = repo
    records = []
    for seed in range(5):
        change = 0.06 + 0.01665 * (seed - 2)  # p is 0.007, below 1 % for one score and not for two
        records += [scored(commits[0], 2.0, seed), scored(commits[1], 2.0 * (1 + change), seed)]
        for name in commits[: 2 * others]:
            value = 2.0 + 0.1 * (seed % 2 if name == commits[1] else 0)
            records.append(scored(name, value, seed, model="mamba"))
    told(tmp_path, records, folder)
    found = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))["findings"]
    (score,) = [f for f in found
                if f["metric"] == "bits_per_byte" and "transformer" in f["cell"]]  # fmt: skip
    assert score["verdict"] == verdict


def test_a_pinned_folder(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {}, COUNT))
    release = write(tmp_path / "release", [step("f" * 40, 0.019)])
    _, found, _ = told(tmp_path / "a", records, folder, f"--pinned={release}")
    pinned = found[f"{STEP} pinned"]
    assert pinned["verdict"] == "slower"
    assert pinned["ratio"] == pytest.approx(20 / 19, abs=0.005)
    other = write(tmp_path / "other", [step("f" * 40, 0.019, machine="other")])
    code, found, _ = told(tmp_path / "b", records, folder, f"--pinned={other}")
    assert code == EXIT_CODES["not comparable"]
    assert "machine: other and machine-1" in str(found[f"{STEP} pinned"]["reason"])


def test_few_commits_are_judged_by_their_processes(
    repo: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, commits = repo
    records = []
    for name, factor in zip(commits[:2], (1.0, 1.1), strict=True):
        for number, level in enumerate(levels(7, {}, 10)):
            records.append(step(name, level * factor, layout=f"{name}{number}"))
    code, found, changes = told(tmp_path, records, folder)
    assert changes == []
    assert (found[f"{STEP} base"]["verdict"], code) == ("slower", EXIT_CODES["slower"])
    assert found[f"{STEP} base"]["n_base"] == 10


def test_a_single_commit(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = repo
    code, found, changes = told(tmp_path, [step(commits[0], 0.02)], folder, plots=True)
    assert (code, changes, list(found)) == (0, [], ["result base"])
    assert found["result base"]["verdict"] == "new"
    printed = capsys.readouterr().out
    assert "shorter than 4 commits" in printed
    assert "no figure" in printed


def test_a_new_machine_at_the_last_commit_is_not_comparable(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = repo
    records = [*steps(commits[:8], levels(0, {}, 8)), step(commits[8], 0.05, machine="new")]
    code, found, _ = told(tmp_path, records, folder)
    assert (code, found["result base"]["verdict"]) == (
        EXIT_CODES["not comparable"],
        "not comparable",
    )
    assert "machine: machine-1 and new" in str(found["result base"]["reason"])
    assert "is a series of its own (machine: machine-1 and new)" in capsys.readouterr().out


def test_a_cell_that_fails_at_its_last_commit(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    failed = make_record(scenario="train", status="failed", reason="out of memory")
    records = [*steps(commits[:8], levels(0, {}, 8)), at(commits[8], failed)]
    code, found, _ = told(tmp_path, records, folder)
    assert (code, found["result base"]["verdict"]) == (EXIT_CODES["worse"], "worse")
    assert "ran before and failed" in str(found["result base"]["reason"])
    assert "out of memory" in str(found["result base"]["reason"])


def test_invalid_times_are_left_out_and_counted(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = repo
    records = steps(commits[:8], levels(0, {}, 8))
    records[3]["timing"]["samples_s"] = [9.0] * 5
    records[3]["validity"] = {"valid": False, "reason": "median known to 30% instead of 5%"}
    _, found, _ = told(tmp_path, records, folder, "--pinned=" + commits[0])
    assert found[f"{STEP} pinned"]["ratio"] == pytest.approx(1.0, abs=0.02)
    assert "Left out: the times of 1 records" in capsys.readouterr().out


def test_unreadable_records_are_named_and_the_rest_is_judged(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commits = repo
    results = write(tmp_path / "results", steps(commits[:6], levels(0, {}, 6)))
    (results / "records" / "broken.json").write_text("{")
    assert main(["history", str(results), f"--repo={folder}", "--no-plots"]) == 0
    printed = capsys.readouterr()
    assert "broken.json" in printed.err
    assert "time of a call" in printed.out


@pytest.mark.parametrize(
    ("option", "words"),
    [("--pinned=v9", "--pinned=v9 is no path, no revision of '"),
     ("--pinned=HEAD", "of which there is no record; there are records of"),
     ("--repo={empty}", "is no repository with a commit"),
     ("--fail-on=slow", "--fail-on=slow is no verdict that fails"),
     ("--noise={empty}/none.json", "cannot be read"),
     ("--pinned={empty}", "no readable record in")],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    repo: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    option: str, words: str,
) -> None:  # fmt: skip
    folder, commits = repo
    results = write(tmp_path / "results", steps(commits[:6], levels(0, {}, 6)))
    empty = tmp_path / "empty"
    empty.mkdir()
    given = ["history", str(results), f"--repo={folder}", option.format(empty=empty)]
    assert main([*given, "--no-plots"]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("error:") == 1
    assert printed.out == ""


def test_markdown_and_figures(repo: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, commits = repo
    records = steps(commits, levels(0, {20: 1.05}, COUNT))
    records += steps(commits[:4], [0.03] * 4, model="mamba", machine="old")
    records += steps(commits[4:], levels(1, {}, COUNT - 4), model="mamba")
    report = tmp_path / "history.md"
    told(tmp_path, records, folder, "--pinned=v1", f"--markdown={report}", plots=True)
    text = report.read_text(encoding="utf-8")
    assert text.splitlines()[2].startswith("**Fails: 2 slower")
    assert "### Change points" in text
    plots = tmp_path / "results" / "plots"
    name = "history-text-train-time-of-a-call"
    assert {path.name for path in plots.iterdir()} == {
        f"{name}.{ending}" for ending in ("svg", "pdf", "png")
    }
    height, width, _ = imread(plots / f"{name}.png").shape
    assert width / height == pytest.approx(16 / 9, rel=0.01)
    svg = (plots / f"{name}.svg").read_text(encoding="utf-8")
    assert commits[20][:7] in svg
    assert "since v1" in svg
    assert "not comparable:" in svg
    assert "#0072B2".lower() in svg.lower()  # the Transformer's blue, as in every figure


def test_the_figure_is_a_kind_of_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no repository: the order is that of time
    results = write(tmp_path / "results", steps(["a" * 40, "b" * 40], [0.02, 0.021]))
    assert main(["plot", str(results), "--kind=history", "--format=svg"]) == 0
    assert (results / "plots" / "history-text-train-time-of-a-call.svg").is_file()
    alone = write(tmp_path / "alone", steps(["a" * 40], [0.02]))
    assert main(["plot", str(alone), "--kind=history"]) == 2
