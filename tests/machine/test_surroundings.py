"""What is said of cells beside which others were busy."""

from typing import Any

import pytest

from bench.machine.surroundings import crowded, disturbed


def seen(*others: tuple[str, float]) -> dict[str, Any]:
    return {"busy": [{"name": name, "cores": cores} for name, cores in others]}


@pytest.mark.parametrize(
    ("others", "threads", "cores", "words"),
    [
        ((("git", 0.3), ("make", 0.3)), 2, 2, "(git, make) used 0.6 of 2 cores"),
        ((("cc", 1.9),), 1, 2, "(cc) used 1.9 of 2 cores"),
        ((("cc", 0.4),), 2, 2, None),  # too little
        ((("cc", 1.0),), 1, 2, None),  # there is room for both
        ((("cc", 6.0),), 2, 8, None),
        ((), 2, 2, None),
    ],
)
def test_others_spoil_times_where_there_is_no_room(
    others: tuple[tuple[str, float], ...], threads: int, cores: int, words: str | None
) -> None:
    found = crowded(seen(*others), threads, cores)
    assert (found is None) == (words is None)
    assert words is None or words in str(found)


def test_what_was_not_looked_at_spoils_nothing() -> None:
    assert crowded({}, 2, 2) is None
    assert crowded({"busy": None}, 2, 2) is None


def test_crowded_cells_are_counted() -> None:
    """A score and a GPU's cell too, whose records are not called invalid for it."""
    bad = {"environment": {**seen(("cc", 2.0)), "threads": 2, "cores": 2}}
    good = {"environment": {**seen(("cc", 0.1)), "threads": 2, "cores": 2}}
    said = disturbed([bad, bad, {}, good])
    assert said is not None
    assert "took cores away from 2 cells" in said
    assert disturbed([{}, good]) is None
