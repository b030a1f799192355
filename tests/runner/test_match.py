"""Budgets through the command line: what is recorded, and what no model meets."""

from pathlib import Path

import pytest

from tests.runner.conftest import Done, here, records

FEW = (
    "suite=smoke", "scenario=quality", "task=text", "threads=1", "suite.baselines=false",
    "suite.items.text=8",
)  # fmt: skip


@pytest.mark.slow
def test_state_and_flops_are_met_and_recorded(tmp_path: Path) -> None:
    def bench(*words: str) -> Done:
        return here(f"results={tmp_path}", *words, *FEW)

    words = ["model=transformer,mamba,diffusion,hybrid", "match=state"]
    assert bench(*words).code == 0
    made = {record["cell"]["model"]: record for record in records(tmp_path)}
    assert {record["cell"]["match"] for record in made.values()} == {"state 65536 bytes"}
    for name in ("transformer", "mamba"):
        record = made[name]
        assert record["figures"]["state_bytes"] == pytest.approx(65536, rel=0.03)
        assert record["parameters"]["matched"] == pytest.approx(250_000, rel=0.03)
        assert record["quality"]["tuned"] is False
    assert "carries no state" in made["diffusion"]["reason"]
    assert "no key 'solve_state'" in made["hybrid"]["reason"]
    assert bench(*words).err.count("made in") == 0, "finished cells are kept"

    assert bench("model=resnet", "match=flops", "match.target=3e10").code == 0
    (record,) = (r for r in records(tmp_path) if r["cell"]["model"] == "resnet")
    spent = record["curve"]["flops_per_item"] * record["quality"]["train_items"]
    assert spent == pytest.approx(3e10, rel=0.03)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("match=state", "match.target=10"), "brings the model within 3% of 10 bytes of state"),
        (("match=params", "match.target=7"), "brings the model within 3% of 7 parameters"),
        (("match=flops", "match.target=100"), "is not met within 3% by whole steps"),
        (("match=time", "match.target=20min"), "does not fit into timeout=900"),
        (("match=time,state",), "is no single match"),
        (("match=speed",), "match=speed is not known; allowed: flops, params, state, time"),
        (("match=state", "match.of=symbol"), "match.of is read by match=flops alone"),
        (("scenario=tune", "scenario.grid=[]"), "is a search of no trials"),
    ],
)
def test_refused_in_one_sentence(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    given = {word.partition("=")[0]: word for word in (*FEW, *words)}  # the last of a key
    done = here(f"results={tmp_path}", "model=mamba", *given.values())
    assert done.code == 2, done.out + done.err
    (sentence,) = done.err.splitlines()
    assert said in sentence
