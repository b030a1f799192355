"""What the table says, from records made up so that the answer is known."""

from typing import Any

import pytest

from bench.report.table import build
from bench.store import validate
from tests.factories import make_record, quality, timing
from tests.report.reading import cell, note, row, shown


def test_a_failure_prints_its_reason() -> None:
    long = "ran out of memory: needed 9.1 GiB, memory_limit_gib=4 allows 4"
    made = [
        make_record(figures={"train_per_s": 5e3}, timing=timing()),
        make_record(model="moe", status="failed", reason=long),
        make_record(model="mamba", status="failed", reason="no GPU"),
        make_record(model="resnet", status="unsupported", reason="has no state to decode with"),
    ]
    (block,) = build(made).blocks
    failed = cell(block, "moe", "train")
    assert failed.text == "OOM"
    assert note(block, failed) == long
    assert cell(block, "mamba", "train").text == "no GPU"
    assert cell(block, "resnet", "train").text == "n/a"
    assert long in " ".join(shown(build(made)).split())


def test_some_failed_seeds_are_told() -> None:
    made = [
        make_record(seed=0, figures={"train_per_s": 5e3}),
        make_record(seed=1, status="failed", reason="the loss is NaN"),
    ]
    (block,) = build(made).blocks
    found = cell(block, "transformer", "train")
    assert found.text == "5.00"
    assert "1 of 2 seeds failed: the loss is NaN" in note(block, found)


def test_untuned_and_invalid_rows_are_marked() -> None:
    made = [
        make_record(model="a", scenario="quality", quality=quality(tuned=False)),
        make_record(model="b", scenario="quality", quality=quality(tuned=True)),
        make_record(
            model="b", figures={"train_per_s": 9e3},
            validity={"valid": False, "reason": "the load was 7"},
        ),
        make_record(model="a", figures={"train_per_s": 1e3}),
    ]  # fmt: skip
    (block,) = build(made).blocks
    assert "untuned" in note(block, row(block, "a").cells[0])
    assert row(block, "b").cells[0].marks == ()
    assert note(block, cell(block, "b", "train")) == "invalid: the load was 7"
    # what is invalid is not ranked, and one alone is not either
    assert not any(r.cells[2].bold for r in block.rows)


def test_a_probe_shows_longer_tests_the_guess_and_what_was_not_learned() -> None:
    def scored(value: float, learned: str, **secondary: float) -> dict[str, Any]:
        return quality(
            value=value, metric="accuracy", better="higher", secondary={"guess": 0.25, **secondary},
            notes={"learned": learned, "reads": "the past"},
        )  # fmt: skip

    made = [
        make_record(
            model=model, scenario="quality", quality=scored(value, learned, at_512=0.5, at_128=0.7)
        )
        for model, value, learned in (
            ("a", 0.99, "learned"), ("b", 0.26, "not learned in the budget")
        )
    ]  # fmt: skip
    (block,) = build(made).blocks
    keys = [column.key for column in block.columns]
    assert keys.index("at_128_secondary") + 1 == keys.index("at_512_secondary")
    assert cell(block, "a", "at_128_secondary").text == "0.700"
    assert cell(block, "a", "guess_secondary").text == "0.250"
    assert note(block, cell(block, "b", "score")) == "not learned in the budget"
    assert cell(block, "a", "score").marks == ()


def older(**more: Any) -> dict[str, Any]:
    return {"created": "2026-11-20T10:00:00+00:00", "figures": {"train_per_s": 1e3}, **more}


@pytest.mark.parametrize(
    "change",
    [{"source": "bbbb"}, {"packages": {"torch": "2.13.0"}}, {"config_hash": "another"}],
)
def test_replaced_records_hide_behind_the_newest(change: dict[str, Any]) -> None:
    made = [make_record(**older(**change)), make_record(figures={"train_per_s": 2e3})]
    (block,) = build(made).blocks
    assert [r.cells[1].text for r in block.rows] == ["2.00"]
    assert any("Hidden records" in n.text and "1 (--stale" in n.text for n in block.notes)
    (block,) = build(made, stale=True).blocks
    assert [(r.kind, r.cells[1].text) for r in block.rows] == [("model", "2.00"), ("older", "1.00")]
    assert "stale: 2026-11-20" in note(block, block.rows[1].cells[0])


def test_a_row_older_than_the_rest_is_stale() -> None:
    made = [
        make_record(**older(model="mamba", source="bbbb")),
        make_record(model="rwkv", figures={"train_per_s": 2e3}),
    ]
    (block,) = build(made).blocks
    assert "stale" in note(block, row(block, "mamba").cells[0])
    assert row(block, "rwkv").cells[0].marks == ()


def test_a_repeat_is_not_stale() -> None:
    made = [make_record(**older()), make_record(figures={"train_per_s": 2e3})]
    assert made[0]["key"] == made[1]["key"]
    assert len(build(made, stale=True).blocks[0].rows) == 1
    (block,) = build(made, everything=True).blocks
    assert [r.kind for r in block.rows] == ["model", "older"]
    assert "earlier run" in note(block, block.rows[1].cells[0])


def test_baselines_stand_below_dimmed() -> None:
    baselines = [
        {"name": "uniform", "description": "8 bits", "seconds": 0.01,
         "quality": quality(value=8.0, stderr=0.0)},
        {"name": "lzma", "description": "lzma", **quality(value=1.5, stderr=None)},
    ]  # fmt: skip
    made = [
        make_record(scenario="quality", quality=quality(value=2.0)),
        make_record(model="baseline", scenario="baselines", baselines=baselines),
    ]
    (block,) = build(made).blocks
    assert [(r.cells[0].text, r.cells[1].text, r.dim) for r in block.rows] == [
        ("transformer", "2.000 ± 0.020", False),
        ("lzma", "1.500", True),
        ("uniform", "8.000", True),
    ]
    assert not any(c.bold for r in block.rows for c in r.cells)


@pytest.mark.parametrize(
    "change",
    [
        {"data_id": "text-2"}, {"task_version": 2}, {"suite_version": 2}, {"machine": "other"},
        {"device": "cuda"}, {"dtype": "bfloat16"},
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_never_mixed(change: dict[str, Any]) -> None:
    made = [
        make_record(scenario="quality", quality=quality()),
        make_record(model="mamba", scenario="quality", quality=quality(), **change),
    ]
    table = build(made)
    assert [len(block.rows) for block in table.blocks] == [1, 1]
    heads = [f"{block.title} {block.context}" for block in table.blocks]
    assert heads[0] != heads[1]
    (value,) = change.values()
    text = f"v{value}" if isinstance(value, int) else value
    assert sum(text in head for head in heads) == 1


def test_a_cell_that_failed_early_stays_in_its_block() -> None:
    failed = make_record(model="moe", status="failed", reason="killed by signal 9")
    del failed["data"]
    made = [failed, make_record(figures={"train_per_s": 1e3})]
    (block,) = build(made).blocks
    assert cell(block, "moe", "train").text == "killed"


def test_training_is_told_in_tokens_where_every_row_states_them() -> None:
    def notes(*qualities: dict[str, Any]) -> str:
        made = [
            make_record(model=f"m{i}", scenario="quality", quality=q)
            for i, q in enumerate(qualities)
        ]
        (block,) = build(made).blocks
        return " ".join(n.text for n in block.notes)

    assert "trained on 262,144 tokens" in notes(quality(), quality())
    silent = quality(train_tokens=None)
    assert "trained on 1,000 windows" in notes(quality(), silent)
    less = quality(train_tokens=512)
    assert "Unequal training: 512 to 262,144 tokens" in notes(quality(), less)


def test_floors_stand_in_the_head() -> None:
    def head(*floors: float | None) -> list[tuple[str, ...]]:
        made = [
            make_record(
                model=f"m{i}", task="generate", scenario="quality",
                quality=quality("generate", secondary={
                    "frechet": 1.0, "kernel": 0.1, "accuracy_log_p": 0.9,
                    "frechet_floor": floor, "kernel_floor": -0.0481}),
            )
            for i, floor in enumerate(floors)
        ]  # fmt: skip
        (block,) = build(made).blocks
        assert any("floor: that of as many real images" in n.text for n in block.notes)
        assert not any("0.0481" in n.text for n in block.notes)
        return [column.head for column in block.columns]

    assert ("Fréchet", "↓ floor", "0.622") in head(0.6218, 0.6221)
    assert ("kernel", "↓ floor", "-0.0481") in head(0.62)
    assert ("Fréchet", "↓ floor", "0.700/0.620") in head(0.62, 0.7)  # newest first
    assert ("Fréchet", "dist. ↓") in head(None)


def test_sizes_and_backends_tell_rows_apart() -> None:
    made = [
        make_record(size=size, backend=backend, figures={"train_per_s": 1e3},
                    parameters={"matched": n, "total": n})
        for size, n in (("tiny", 1_500_000), ("nano", 250_000))
        for backend in ("torch", "transformers")
    ]  # fmt: skip
    (block,) = build(made).blocks
    assert [r.cells[0].text for r in block.rows] == [
        "transformer/nano torch", "transformer/nano transformers",
        "transformer/tiny torch", "transformer/tiny transformers",
    ]  # fmt: skip
    assert [r.cells[2].text for r in block.rows] == ["250k/250k"] * 2 + ["1.50M/1.50M"] * 2


def test_a_count_off_target_is_told() -> None:
    made = [make_record(parameters={"matched": 300_000, "total": 300_000, "target": 250_000})]
    (block,) = build(made).blocks
    assert "more than 3 %" in note(block, cell(block, "transformer", "parameters"))


def test_states_at_other_contexts_are_told_and_not_ranked() -> None:
    made = [
        make_record(model=m, scenario="decode",
                    figures={"decode_per_s": 100.0, "state_bytes": b, "state_context": c})
        for m, b, c in (("a", 2048, 256), ("b", 1024, 256), ("c", 512, 64))
    ]  # fmt: skip
    (block,) = build(made).blocks
    assert cell(block, "a", "state").text == "2.00"
    assert cell(block, "c", "state").text == "0.500 @64"
    assert not any(r.cells[2].bold for r in block.rows)
    assert any("256" in column.title for column in block.columns)


def test_a_search_for_a_rate_is_told_in_a_note() -> None:
    trials = [{"lr": 0.01, "value": 2.25, "stderr": 0.1}, {"lr": 0.04, "value": None}]
    made = [
        make_record(
            model="mamba",
            scenario="tune",
            figures={"best_lr": 0.01},
            tuning={"trials": trials, "better": "lower"},
        ),
        make_record(model="moe", scenario="tune", status="failed", reason="out of memory: 3 GiB"),
    ]
    (block,) = build(made).blocks
    texts = [n.text for n in block.notes]
    assert (
        "Rate of mamba nano: 0.01 is the best on validation of 0.01 (2.250), 0.04 (no score)."
        in texts
    )
    assert "Rate of moe nano: failed, out of memory: 3 GiB." in texts


@pytest.mark.parametrize(
    "change",
    [
        {"figures": None},
        {"tuning": None},
        {"tuning": {"trials": None}},
        {"figures": {"best_lr": "unknown"}},
        {"tuning": {"trials": [{"lr": None, "value": None}]}},
    ],
)
def test_a_search_that_lacks_something_is_no_reason_to_print_nothing(
    change: dict[str, Any],
) -> None:
    searched = {
        "figures": {"best_lr": 0.01},
        "tuning": {"trials": [{"lr": 0.01, "value": 2.25}], "better": "lower"},
    }
    build([validate(make_record(scenario="tune", **{**searched, **change}))])
