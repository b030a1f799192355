"""Pairs of processes, one of which does not come to its end."""

from pathlib import Path
from typing import Any

import pytest

from bench.ab import sample
from bench.ab.sample import Sample, Side, take_pair
from tests.ab.checkout import write

REQUEST: dict[str, Any] = {"threads": 1}
TIMEOUT_S = 1.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that processes which do next to nothing need."""
    monkeypatch.setattr(sample, "LOOK_S", 0.3)
    monkeypatch.setattr(sample, "GRACE_S", 10.0)


def pair(tmp_path: Path, base: str, head: str) -> tuple[str, str]:
    """What became of base and head, whose behaviours are given; the one that sleeps leads."""
    sides = (Side("base", tmp_path / "base"), Side("head", tmp_path / "head"))
    write(sides[0].root, base)
    write(sides[1].root, head)
    leads = head.startswith("sleep")
    samples = take_pair(sides, (REQUEST, REQUEST), TIMEOUT_S, second_leads=leads)
    first, second = (s.payload.get("reason", s.payload["status"]) for s in samples)
    return first, second


LATE = "time-out: not finished after 1 s"


@pytest.mark.parametrize(
    ("base", "head", "told"),
    [
        ("good", "sleep", ("ok", LATE)),
        ("sleep", "good", (LATE, "ok")),
        ("good", "sleep in set-up", ("ok", LATE)),
    ],
)
def test_the_side_that_sleeps_is_blamed_and_the_other_one_finishes(
    tmp_path: Path, base: str, head: str, told: tuple[str, str]
) -> None:
    assert pair(tmp_path, base, head) == told


def test_a_side_that_waited_and_does_not_finish_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "GRACE_S", 0.1)
    told = "stopped: it waited for the other side, which was not finished after 1 s"
    assert pair(tmp_path, "endless", "sleep") == (told, LATE)


def test_two_that_take_turns_are_late_together(tmp_path: Path) -> None:
    assert pair(tmp_path, "endless", "endless") == (LATE, LATE)


@pytest.mark.parametrize(("scenario", "groups"), [("quality", [(0,), (1,)]), ("train", [(0, 1)])])
def test_trainings_for_a_score_run_one_after_the_other(
    scenario: str, groups: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def take(sides: Any, requests: Any, places: Any, timeout: float, *, leader: int) -> Any:
        seen.append(places)
        return [Sample({"status": "ok", "side": sides[k].name}, 1.0) for k in places]

    monkeypatch.setattr(sample, "_take", take)
    sides, request = (Side("base", Path()), Side("head", Path())), {"scenario": scenario}
    found = take_pair(sides, (request, request), 1.0)
    assert seen == groups
    assert [one.payload["side"] for one in found] == ["base", "head"]


def test_a_process_alone_waits_for_nobody(tmp_path: Path) -> None:
    sides = (Side("base", tmp_path / "base"), Side("head", tmp_path / "head"))
    for side in sides:
        write(side.root)
    request = {"threads": 1, "scenario": "quality"}
    assert [one.payload["status"] for one in take_pair(sides, (request, request), 20.0)] == [
        "ok"
    ] * 2
