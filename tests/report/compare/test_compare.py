"""Which findings records lead to."""

from typing import Any

import pytest

from bench.report.compare.compare import compare
from bench.report.compare.floors import Floors
from bench.report.compare.verdict import EXIT_CODES, Finding, exit_code
from tests.factories import make_record
from tests.report.compare.records import scores, steps

STEP = "time of a call"


def by_metric(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.metric: finding for finding in findings}


def test_a_slower_step_is_told_with_its_numbers() -> None:
    found = by_metric(compare(steps(10), steps(10, 0.022, draw=1)))[STEP]
    assert found.verdict == "slower"
    assert found.base == pytest.approx(0.02, rel=0.01)
    assert found.ratio == pytest.approx(1.1, rel=0.01)
    assert found.head == pytest.approx(found.base * found.ratio)  # type: ignore[operator]
    assert "transformer · nano · text · train" in found.reason
    assert STEP in found.reason
    assert exit_code([found]) == EXIT_CODES["slower"]


def test_equal_and_faster() -> None:
    assert by_metric(compare(steps(10), steps(10, draw=1)))[STEP].verdict == "same"
    assert by_metric(compare(steps(10), steps(10, 0.018, draw=1)))[STEP].verdict == "faster"


def test_children_of_one_server_are_one_sample() -> None:
    base, head = steps(10), steps(10, 0.03, draw=1)
    for record in head:
        record["environment"]["layout"] = "server"
    found = by_metric(compare(base, head))[STEP]
    assert (found.verdict, found.n_base, found.n_head) == ("ambiguous", 10, 1)
    assert "can never be significant" in found.reason


def test_records_that_do_not_say_are_taken_for_one_server() -> None:
    head = steps(10, 0.03, draw=1)
    for record in head:
        del record["environment"]["layout"]
    assert by_metric(compare(steps(10), head))[STEP].n_head == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "other"}, "machine: machine-1 and other"),
        ({"backend": "mamba_ssm"}, "backend: torch and mamba_ssm"),
        ({"suite_version": 2}, "suite version: 1 and 2"),
        ({"task_version": 2}, "task version: 1 and 2"),
    ],
)
def test_what_was_not_measured_alike_is_not_compared(changes: dict[str, Any], words: str) -> None:
    (found,) = compare(steps(10), steps(10, 0.03, draw=1, **changes))
    assert found.verdict == "not comparable"
    assert words in found.reason
    assert exit_code([found]) == EXIT_CODES["not comparable"]


def test_other_data_is_not_compared() -> None:
    head = steps(10)
    for record in head:
        record["data"]["sha256"] = "e" * 64
    assert compare(steps(10), head)[0].verdict == "not comparable"


def test_another_package_is_what_a_comparison_is_for() -> None:
    head = steps(10, draw=1, packages={"torch": "3.0"})
    assert by_metric(compare(steps(10), head))[STEP].verdict == "same"


def test_exact_figures_are_compared_exactly() -> None:
    memory = {"parameters_bytes": 1000, "peak_bytes": 5000, "method": "CPU allocator events"}
    base = steps(10, memory=memory)
    head = steps(10, draw=1, memory={**memory, "peak_bytes": 5001})
    found = by_metric(compare(base, head))
    assert found["parameter bytes"].verdict == "same"
    assert found["peak bytes of tensors"].verdict == "changed"
    assert "was 5000 and is 5001" in found["peak bytes of tensors"].reason
    assert exit_code(found.values()) == 0
    assert exit_code(found.values(), ["changed"]) == EXIT_CODES["changed"]


def test_scores_are_compared_by_seed() -> None:
    base = {seed: 2.0 + 0.1 * seed for seed in range(5)}
    worse = {seed: value + 0.08 + 0.001 * seed for seed, value in base.items()}
    found = by_metric(compare(scores(base), scores(worse)))["bits_per_byte"]
    assert found.verdict == "worse"
    assert (found.base, found.n_base) == (pytest.approx(2.2), 5)
    assert by_metric(compare(scores(base), scores(base)))["bits_per_byte"].verdict == "same"


def test_cells_that_came_went_and_broke() -> None:
    base, head = steps(1), steps(1, draw=1)
    other = steps(1, model="mamba")
    assert [f.verdict for f in compare(base, head + other) if "mamba" in f.cell] == ["new"]
    gone = [f for f in compare(base + other, head) if "mamba" in f.cell]
    assert [f.verdict for f in gone] == ["not comparable"]
    broken = [make_record(status="failed", reason="NaN loss")]
    (found,) = compare(base, broken)
    assert found.verdict == "worse"
    assert "NaN loss" in found.reason
    (found,) = compare(broken, head)
    assert (found.verdict, exit_code([found])) == ("new", 0)
    assert "runs now; base failed: NaN loss" in found.reason


def test_what_had_no_result_before_has_got_no_worse() -> None:
    broken = [make_record(status="failed", reason="NaN loss")]
    (found,) = compare(broken, broken)
    assert (found.verdict, exit_code([found])) == ("same", 0)
    assert "base failed: NaN loss; head failed: NaN loss" in found.reason
    absent = [make_record(status="unsupported", reason="has no state")]
    assert compare(absent, absent) == []
    (found,) = compare(steps(1), absent)
    assert found.verdict == "worse"
    assert "ran before and is unsupported: has no state" in found.reason


def test_a_head_that_fails_now_and_then_is_worse() -> None:
    broken = [make_record(scenario="train", status="failed", reason="crash: exit code -11")]
    base, head = steps(10), steps(10, draw=1)
    found = by_metric(compare(base, head + broken))
    assert (found["result"].verdict, found[STEP].verdict) == ("worse", "same")
    assert "failed in 1 of 11 processes: crash: exit code -11" in found["result"].reason
    assert "result" not in by_metric(compare(base + broken, head + broken))


def test_metrics_of_one_side_are_told() -> None:
    memory = {"parameters_bytes": 1000, "method": "CPU allocator events", "peak_bytes": 5000}
    base, head = steps(10, memory=memory), steps(10, draw=1, memory={"parameters_bytes": 1000})
    gone = by_metric(compare(base, head))["peak bytes of tensors"]
    assert (gone.verdict, exit_code([gone])) == ("not comparable", 13)
    assert "base states it, head does not" in gone.reason
    came = by_metric(compare(head, base))["peak bytes of tensors"]
    assert (came.verdict, exit_code([came])) == ("new", 0)


def test_a_time_of_nothing_is_no_sample() -> None:
    head = steps(10, draw=1)
    for record in head:
        record["timing"]["samples_s"][0] = 0.0
    found = by_metric(compare(steps(10), head))[STEP]
    assert (found.verdict, found.head) == ("not comparable", None)


def test_machines_are_not_mixed_on_a_side() -> None:
    older = {"created": "2026-11-01T00:00:00+00:00"}
    mixed = steps(10, 0.05, machine="other", **older) + steps(10)
    found = by_metric(compare(mixed, steps(10, draw=1)))[STEP]
    assert (found.verdict, found.n_base) == ("same", 10)


def test_floors_are_those_of_the_cells_machine() -> None:
    head = steps(10, 0.021, draw=1)
    assert by_metric(compare(steps(10), head))[STEP].verdict == "slower"
    for machine, verdict in (("machine-1", "same"), ("other", "slower")):
        floors = Floors({machine: {"another metric": 0.08}})
        assert by_metric(compare(steps(10), head, floors=floors))[STEP].verdict == verdict


def test_only_the_newest_source_of_a_side_counts() -> None:
    old = steps(10, 0.05, created="2026-11-01T00:00:00+00:00", source="old")
    found = by_metric(compare(old + steps(10), steps(10, draw=1)))[STEP]
    assert (found.verdict, found.n_base) == ("same", 10)


def test_the_gravest_stands_first() -> None:
    head = steps(10, 0.03, draw=1) + steps(1, model="mamba")
    verdicts = [finding.verdict for finding in compare(steps(10), head)]
    assert verdicts == sorted(verdicts, key=list(EXIT_CODES).index)
    assert verdicts[0] == "slower"
