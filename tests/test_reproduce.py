"""Published statements and what is said of them; the runs themselves are `benchmarks.reproduce`."""

from pathlib import Path

import pytest
from scipy import stats

from bench.cli import main as bench
from benchmarks.reproduce.__main__ import COMMON, main, put, table
from benchmarks.reproduce.judging import HOLDS, NOT, UNTOLD, Found, interval, judge, sentence
from benchmarks.reproduce.studies import STUDIES, Above, Reaches, Rival, StaysBelow, Study


def found(**scores: list[float]) -> dict[str, Found]:
    return {
        name: Found(Rival(name, ()), 0.01, "0.01: 0.9", {"value": values}, 3.0)
        for name, values in scores.items()
    }


def test_the_interval_is_students() -> None:
    values = [0.7, 0.9, 0.8]
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 2, loc=0.8, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.9, 0.95, 0.92], [0.1, 0.2, 0.12], HOLDS),
        ([0.1, 0.2, 0.12], [0.9, 0.95, 0.92], NOT),
        ([0.9, 0.1, 0.5], [0.4, 0.5, 0.6], UNTOLD),
        ([0.5, 0.7, 0.9], [0.49, 0.69, 0.89], HOLDS),  # seeds are paired
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], UNTOLD),
    ],
)
def test_two_rivals(a: list[float], b: list[float], verdict: str) -> None:
    assert judge(Above("a", "b"), found(a=a, b=b))[0] == verdict


@pytest.mark.parametrize(
    ("values", "least", "verdict"),
    [
        ([0.995, 0.998, 0.996], 0.99, HOLDS), ([0.3, 0.31, 0.32], 0.99, NOT),
        ([0.9, 1.0, 1.0], 0.95, UNTOLD),
    ],
)  # fmt: skip
def test_an_amount(values: list[float], least: float, verdict: str) -> None:
    assert judge(Reaches("a", least), found(a=values))[0] == verdict
    below = {HOLDS: NOT, NOT: HOLDS, UNTOLD: UNTOLD}[verdict]
    assert judge(StaysBelow("a", least), found(a=values))[0] == below


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_studies_speak_of_their_own_rivals(study: Study) -> None:
    names = {rival.name for rival in study.rivals}
    assert len(names) == len(study.rivals)
    for statement in study.says:
        told = {statement.better, statement.worse} if isinstance(statement, Above) else {
            statement.rival
        }  # fmt: skip
        assert told <= names
        assert statement.score in study.scores
        assert sentence(statement)


# Composing takes a while: each study with its first rival, and each rival once.
ASKED = {(s.task, s.words): s.rivals[0].words for s in STUDIES}
ASKED |= {("recall", r.words): r.words for s in STUDIES for r in s.rivals[1:]}


@pytest.mark.parametrize(("task", "words"), ASKED)
def test_the_bench_knows_what_studies_set(
    task: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    given = dict.fromkeys([*COMMON, f"task={task}", *words, *ASKED[task, words]])
    assert bench([*given, "scenario=tune", "plan=true", f"results={tmp_path}"]) == 0


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    study = STUDIES[1]
    page = tmp_path / "page.md"
    page.write_text(f"above\n<!-- {study.name} -->\nold\n<!-- /{study.name} -->\nbelow\n")
    scores = {name: [1.0, 0.9, 1.0] for name in study.scores}
    made = {rival.name: Found(rival, 0.01, "", scores, 3.0) for rival in study.rivals}
    put(page, study, table(study, made, 3))
    text = page.read_text()
    assert "\nold\n" not in text
    assert text.startswith("above\n<!--")
    assert text.endswith("-->\nbelow\n")
    assert "provisional: 3 seeds" in text
    with pytest.raises(ValueError, match=r"has no lines '<!-- recall -->'"):
        put(page, STUDIES[0], "")


def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in ((["nothing"], "no study"), (["--seeds", "1"], "too few")):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert said in capsys.readouterr().err
