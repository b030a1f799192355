"""Other tools' rules on samples made by hand."""

import pytest

from bench.selftest import rivals, summary
from bench.selftest.pool import SLOWDOWNS, Pair, Pool
from tests.selftest.pools import pool


def side(count: int, level: float) -> list[list[float]]:
    """Processes whose medians lie within a thousandth of `level`, none like another."""
    return [[level * (1 + 1e-4 * number)] * 3 for number in range(count)]


@pytest.mark.parametrize("factor", [1.2, 1 / 1.2])
def test_asv_wants_a_tenth_and_seven_processes(factor: float) -> None:
    assert rivals.asv(side(7, 1.0), side(7, factor))
    assert not rivals.asv(side(7, 1.0), side(7, factor**0.25)), "less than its factor of 1.1"
    # At six a side the least p is 2 / C(12, 6) = 0.00216, above its 0.002.
    assert not rivals.asv(side(6, 1.0), side(6, 2.0))


def test_pyperf_calls_whatever_its_t_test_finds() -> None:
    base, head = side(10, 1.0), side(10, 1.01)
    assert rivals.pyperf(base, head)
    assert not rivals.pyperf(base, base)
    loud = [[1.0 + 0.5 * (-1) ** number] for number in range(10)]
    assert not rivals.pyperf(loud, [[value * 1.05 for value in one] for one in loud])
    assert rivals.pyperf(base, head[:7]), "unequal numbers are cut to the fewer"


@pytest.mark.parametrize(
    ("head", "called"), [(1.069, False), (1.071, True), (0.931, False), (0.929, True)]
)
def test_the_plain_threshold_is_seven_per_cent_of_the_means(head: float, called: bool) -> None:
    one = [[1.0, 1.0, 9.0]]  # a process counts with its median
    assert rivals.threshold(one, [[head, head, 0.1]]) == called


def test_called_is_the_share_of_comparisons() -> None:
    exact = Pool(
        {"step": [Pair(s, [1.0], [1.0 + s], 1.0) for s in SLOWDOWNS for _ in range(10)]}, {}
    )
    shares = [
        rivals.called(rivals.threshold, exact, "step", slowdown, 10, 5, 0) for slowdown in SLOWDOWNS
    ]
    assert shares == [0.0, 0.0, 1.0]
    with_half = Pool(
        {"step": [Pair(0.1, [1.0], [1.0 + 0.2 * (i % 20 < 10)], 1.0) for i in range(20)]}, {}
    )
    share = rivals.called(rivals.threshold, with_half, "step", 0.1, 400, 5, 0)
    assert 0.3 < share < 0.8, "some blocks hold slow ones, some do not"


def test_every_rule_is_one_of_these() -> None:
    rules = {rule for rule, _ in rivals.RULES.values()}
    assert rules == {rivals.asv, rivals.pyperf, rivals.threshold}
    assert rivals.THRESHOLD == 0.07


def test_a_rule_whose_library_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rivals.RULES, "pyperf, t-test", (rivals.pyperf, "no_such_library"))
    sheet = summary.rivals(pool(0.01, count=20), 2, 0)
    assert {row[0].value for row in sheet.rows} == set(rivals.RULES) - {"pyperf, t-test"}
    assert sheet.notes == [
        "pyperf, t-test: not shown, for no_such_library is not installed (extra dev)."
    ]
