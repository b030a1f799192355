"""What the table says, from records made up so that the answer is known."""

import copy
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from bench.report.layout import Block, Cell, Row, Table
from bench.report.markdown import to_markdown
from bench.report.noise import t_half
from bench.report.table import build, render, to_json
from bench.report.terminal import WIDTH, show, to_rich
from bench.store import Record, Store, validate
from bench.store.record import REQUIRED_CELL
from tests.factories import items_file, make_record, quality, timing
from tests.report.sample import sample_records, sample_store


def cell(block: Block, model: str, column: str) -> Cell:
    return row(block, model).cells[[c.key for c in block.columns].index(column)]


def row(block: Block, model: str) -> Row:
    (found,) = [r for r in block.rows if r.cells[0].text == model]
    return found


def note(block: Block, found: Cell) -> str:
    texts = {n.mark: n.text for n in block.notes}
    return " ".join(texts[mark] for mark in found.marks)


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=40)
    show(table, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def scored(model: str, items: Any, task: str = "text", seed: int = 0, **more: Any) -> Any:
    """A quality record whose value is the mean of `items`, and its artefact."""
    items = np.asarray(items, dtype=np.float64)
    section = quality(task, items.mean(), items.std(ddof=1) / len(items) ** 0.5, **more)
    record = make_record(model=model, task=task, scenario="quality", seed=seed, quality=section)
    return record, {"items.npy": items_file(items)}


def built(root: Path, made: list[tuple[Record, dict[str, bytes]]], **options: Any) -> Table:
    store = Store(root)
    for record, artefacts in made:
        store.write(record, artefacts)
    return build(store.read_all()[0], store.artefacts, **options)


def test_bold_follows_the_paired_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shared = 2 + rng.normal(0, 0.5, 400)  # items differ far more than the models do
    jitter = rng.normal(0, 0.1, 400)
    jitter -= jitter.mean()
    made = [
        scored("best", shared),
        scored("inside", shared + 0.005 + jitter),  # 1.96 se = 0.0098
        scored("outside", shared + 0.015 + jitter),  # unpaired it would be inside: 0.069
    ]
    (block,) = built(tmp_path, made).blocks
    assert [r.cells[0].text for r in block.rows] == ["best", "inside", "outside"]
    assert [r.cells[1].bold for r in block.rows] == [True, True, False]
    assert any("paired difference over test items" in n.text for n in block.notes)


def test_without_items_the_intervals_decide() -> None:
    made = [
        make_record(model=m, scenario="quality", quality=quality(value=v, stderr=0.01))
        for m, v in (("best", 2.0), ("near", 2.02), ("far", 2.04))
    ]
    (block,) = build(made).blocks
    # 1.96 · √2 · 0.01 = 0.0277
    assert [r.cells[1].bold for r in block.rows] == [True, True, False]
    assert any("unpaired" in n.text for n in block.notes)


def test_forged_items_are_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record, artefacts in (scored("a", [1.0, 2.0, 3.0]), scored("b", [1.1, 2.1, 3.1])):
        store.write(record, artefacts)
    records, _ = store.read_all()
    (store.artefacts / records[0]["id"] / "items.npy").write_bytes(items_file([9.0, 9.0, 9.0]))
    (block,) = build(records, store.artefacts).blocks
    assert any("differs from the hash" in n.text for n in block.notes)


def test_three_seeds_are_paired_by_seed() -> None:
    values = {"best": [2.00, 2.10, 2.20], "near": [2.02, 2.10, 2.21], "far": [2.05, 2.151, 2.249]}
    made = [
        make_record(model=m, scenario="quality", seed=s, quality=quality(value=v))
        for m, numbers in values.items()
        for s, v in enumerate(numbers)
    ]
    (block,) = build(made).blocks
    # near: mean 0.010, t half 0.0248; far: 0.050 ± 0.0025; unpaired both would be inside
    assert [r.cells[1].bold for r in block.rows] == [True, True, False]
    measure = cell(block, "best", "score").measures[0]
    low, high = stats.t.interval(0.95, 2, loc=2.1, scale=stats.sem(values["best"]))
    assert (measure.low, measure.high) == pytest.approx((low, high))
    assert (measure.over, measure.n) == ("seeds", 3)
    assert any("t interval over seeds (n = 3)" in n.text for n in block.notes)


def test_the_t_interval_is_scipys() -> None:
    values = [1.0, 1.5, 1.7, 2.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_half(values) == pytest.approx((high - low) / 2)


def test_one_seed_has_an_interval_over_items() -> None:
    (block,) = build([make_record(scenario="quality", quality=quality(value=2, stderr=0.1))]).blocks
    assert cell(block, "transformer", "score").text == "2.000 ± 0.196"
    assert any("test items (n = 200)" in n.text for n in block.notes)


def test_bounds_are_marked_and_ranked_apart() -> None:
    made = [
        make_record(model="exact-1", scenario="quality", quality=quality(value=2.0)),
        make_record(model="exact-2", scenario="quality", quality=quality(value=3.0)),
        make_record(model="diffusion", scenario="quality", quality=quality(value=1.0, bound=True)),
    ]
    (block,) = build(made).blocks
    assert [r.cells[0].text for r in block.rows] == ["exact-1", "exact-2", "diffusion"]
    assert cell(block, "diffusion", "score").text.startswith("≤1.000")
    assert [r.cells[1].bold for r in block.rows] == [True, False, False]
    assert row(block, "diffusion").rule_above
    assert "≤: an upper bound" in shown(build(made))


def test_classification_is_ranked_by_readout_and_higher_is_better() -> None:
    made = [
        make_record(
            model=model, task="digits", scenario="quality",
            quality=quality("digits", value, 0.001, secondary={"nll": 0.5},
                            notes={"readout": readout, "view": "sequence", "forwards": passes}),
        )
        for model, value, readout, passes in (
            ("a", 0.90, "head", "1"), ("b", 0.95, "head", "1"), ("c", 0.99, "bound", "320"),
        )
    ]  # fmt: skip
    (block,) = build(made).blocks
    assert [r.cells[0].text for r in block.rows] == ["b", "a", "c"]
    assert [r.cells[1].bold for r in block.rows] == [True, False, False]
    assert cell(block, "c", "readout_secondary").text == "bound"
    assert cell(block, "c", "forwards_secondary").text == "320"
    assert cell(block, "a", "nll_secondary").text == "0.500"


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


def test_the_sample_fits_120_columns_with_nothing_cut_off(tmp_path: Path) -> None:
    store = sample_store(tmp_path)
    table = build(store.read_all()[0], store.artefacts)
    assert len(table.blocks) == 3
    text = shown(table)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    for block in table.blocks:
        for found in block.rows:
            for one in found.cells[1:]:
                assert one.text in text
    assert "Test @ 2.0GHz, 2 cores, 8 GiB" in text
    assert "2026-11-24" in text


def test_long_names_wrap_instead_of_being_cut(tmp_path: Path) -> None:
    made = [r for r, _ in sample_records() if r["cell"]["task"] == "generate"]
    for record in made:
        if record["cell"]["model"] == "mamba2":
            record["cell"]["model"] = "mamba2-with-a-very-long-name-of-a-user"
    text = shown(build(made))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    flat = "".join(line.split(" ")[0] for line in text.splitlines() if line[:1] != " ")
    assert "mamba2-with-a-very-long-name-of-a-user" in flat


def test_markdown_has_the_rows_of_the_terminal(tmp_path: Path) -> None:
    store = sample_store(tmp_path)
    table = build(store.read_all()[0], store.artefacts)
    blocks = to_markdown(table).split("### ")[1:]
    for block, text in zip(table.blocks, blocks, strict=True):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) - 2 == to_rich(block).row_count == len(block.rows)
        assert {line.replace("\\|", "").count("|") for line in lines} == {len(block.columns) + 1}


def test_emphasis_reaches_the_terminal() -> None:
    made = [
        make_record(model="fast", figures={"train_per_s": 2e3}),
        make_record(model="slow", figures={"train_per_s": 1e3}),
        make_record(model="baseline", scenario="baselines",
                    baselines=[{"name": "plain", "quality": quality(value=5.0, stderr=None)}]),
    ]  # fmt: skip
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    show(build(made), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (fast,) = [line for line in lines if "fast" in line]
    (slow,) = [line for line in lines if "slow" in line]
    (plain,) = [line for line in lines if "plain" in line]
    assert re.search(r"\x1b\[1m *2\.00", fast)
    assert "\x1b[1m" not in slow
    assert "\x1b[2mplain" in plain


def test_whatever_a_record_lacks_the_table_is_printed() -> None:
    """Every section and every key of it in turn is null: valid, so it must be readable."""
    shown_models = ("rwkv", "baseline")
    text = [r for r, _ in sample_records() if r["cell"]["task"] == "text"]
    made = [r for r in text if r["cell"]["model"] in shown_models]
    whole: Any = made
    for place, record in enumerate(whole):
        for name, section in record.items():
            if name in ("schema", "id", "created", "status", "key", "config"):
                continue
            changed = copy.deepcopy(whole)
            if name != "cell":
                changed[place][name] = None
                shown(build([validate(r) for r in changed]))
            for key in section if isinstance(section, dict) else ():
                if name == "cell" and key in REQUIRED_CELL:
                    continue
                changed[place][name] = {**section, key: None}
                shown(build([validate(r) for r in changed]))


def test_nothing_at_all() -> None:
    assert "no records" in shown(build([]))


def test_render_and_json(tmp_path: Path) -> None:
    import json

    store = sample_store(tmp_path)
    records, _ = store.read_all()
    console = Console(file=io.StringIO(), width=120)
    render(records, console, store.artefacts)
    assert "bits per byte" in console.file.getvalue()  # type: ignore[attr-defined]
    document = json.loads(json.dumps(to_json(build(records, store.artefacts)), allow_nan=False))
    assert [block["identity"]["task"] for block in document["blocks"]] == [
        "text", "digits", "generate",
    ]  # fmt: skip


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
        "Rate of mamba: 0.01 is the best on validation of 0.01 (2.250), 0.04 (no score)." in texts
    )
    assert "Rate of moe: failed, out of memory: 3 GiB." in texts
