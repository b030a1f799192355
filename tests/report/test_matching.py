"""What tables say of budgets: what was equal, and what that left unequal."""

from typing import Any

from bench.report import matching
from bench.report.layout import Notes
from bench.report.select import select
from tests.factories import make_record, quality


def said(*models: dict[str, Any], match: str | None = None) -> list[str]:
    """The notes on a block of quality records, one a model."""
    records = []
    for number, sections in enumerate(models):
        record = make_record(
            model=f"m{number}", scenario="quality",
            quality={**quality("text", 2.0), "train_items": 100, "train_seconds": 7.0}, **sections,
        )  # fmt: skip
        if match is not None:
            record["cell"]["match"] = match
        records.append(record)
    notes = Notes()
    (selection,) = select(records)
    matching.explain(selection, notes)
    return [note.text for note in notes.collect()]


def model(parameters: int, state: int, flops: float) -> dict[str, Any]:
    return {
        "parameters": {"matched": parameters, "total": 2 * parameters, "active": 300_000,
                       "target": 250_000},
        "figures": {"state_bytes": state, "state_context": 256},
        "curve": {"items": [1], "seconds": [1.0], "loss": [1.0], "tokens_per_item": 256,
                  "flops_per_item": 256 * flops},
    }  # fmt: skip


def test_what_is_equal_is_not_listed() -> None:
    rows = model(250_000, 4096, 1.5e6), model(252_000, 65536, 3e6)
    assert said(*rows) == [
        "Matched: parameters outside embeddings, within 3%. Left unequal: KiB of state 4.00 to "
        "64.0; MFLOPs of training a token or image 1.50 to 3.00; FLOPs of training 38.4G to 76.8G."
    ]


def test_rows_that_do_not_meet_it_are_named() -> None:
    rows = model(250_000, 4096, 1e6), model(900_000, 4096, 1e6), model(241_000, 4096, 1e6)
    assert said(*rows) == [
        "Matched: parameters outside embeddings, within 3%, but not by m2 241k, m1 900k. Left "
        "unequal: parameters 241k to 900k."
    ]


def test_the_budget_that_was_asked_for_is_named() -> None:
    rows = model(100_000, 65000, 1e6), model(900_000, 65536, 1e6)
    assert said(*rows, match="state 65536 bytes") == [
        "Matched: 65536 bytes of state, within 3%. Left unequal: parameters 100k to 900k."
    ]
    (text,) = said(*rows, match="flops 1e+12 of all training")
    assert text.startswith(
        "Matched: 1.00e+12 FLOPs of all training, within 3%, but not by m1 25.6G"
    )
    (text,) = said(*rows, match="time 7 s")
    assert text.startswith("Matched: 7 s of training, within 3%. Left")


def test_one_model_is_matched_with_nothing() -> None:
    assert said(model(100_000, 65000, 1e6)) == []
