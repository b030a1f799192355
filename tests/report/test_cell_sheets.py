"""The sheets with a row a cell: latency and memory."""

from pathlib import Path
from typing import Any

import pandas
import pytest

from bench.report.__main__ import main
from bench.store import Record, Store
from tests.factories import make_record, quality, timing

MIB = 2**20
EARLIER = Path(__file__).resolve().parents[2] / "results" / "published-standard"


def decoded(model: str, **changes: Any) -> Record:
    latency = {
        "prompt": 128, "ttft_s": 0.004, "ttft_ci_low_s": 0.0038, "ttft_ci_high_s": 0.0045,
        "ttft_samples_s": [0.004] * 7, "p50_s": 0.001, "p95_s": 0.0012, "p99_s": None,
    }  # fmt: skip
    memory = {
        "parameters_bytes": MIB, "state_bytes": 3 * MIB, "peak_bytes": 5 * MIB,
        "rss_start_bytes": 400 * MIB, "rss_peak_bytes": 450 * MIB, "method": "CPU allocator events",
        "predicted": {"parameters_bytes": MIB, "state_bytes": 2 * MIB},
    }  # fmt: skip
    sections = {
        "figures": {"decode_per_s": 987.0}, "timing": {**timing(), "n": 123},
        "latency": latency, "memory": memory,
    }  # fmt: skip
    return make_record(model=model, scenario="decode", **(sections | changes))


def trained(model: str, **changes: Any) -> Record:
    memory = {
        "parameters_bytes": MIB, "gradients_bytes": MIB, "optimizer_bytes": 2 * MIB,
        "activations_bytes": 7 * MIB, "peak_bytes": 11 * MIB, "method": "CPU allocator events",
        "predicted": {
            "parameters_bytes": MIB, "gradients_bytes": MIB, "optimizer_bytes": 2 * MIB,
        },
    }  # fmt: skip
    return make_record(model=model, scenario="train", memory=memory, **changes)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    why = {"valid": False, "reason": "time to first token: median known to 9.0% instead of 5.0%"}
    broken = {"status": "failed", "reason": "out of memory: needed 5.1 GiB"}
    for record in (
        decoded("mamba"), decoded("transformer", validity=why, latency={"p99_s": 0.1}),
        trained("mamba"),
        trained("moe", **broken) | {"memory": None},
        make_record(model="rwkv", scenario="decode", status="unsupported", reason="no state"),
        make_record(model="mamba", scenario="quality", quality=quality()),
    ):  # fmt: skip
        Store(tmp_path).write(record)
    return tmp_path


def lines(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main([command, str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_latency_of_each_cell(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines("latency", results, capsys)
    (row,) = [line for line in shown if line.startswith("mamba")]
    for text in ("4.00", "[3.80, 4.50]", " 7 ", "1.00", "1.20", "—", "123", "987 tokens/s"):
        assert text in row
    assert "transformer text decode is invalid: time to first token" in "\n".join(shown)
    assert not any(line.startswith("rwkv") for line in shown)


def test_memory_by_phase_beside_its_formula(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = lines("memory", results, capsys)
    training, decoding = [" ".join(line.split()) for line in shown if line.startswith("mamba")]
    assert training == "mamba text train 1.00 1.00 0% 1.00 1.00 0% 2.00 2.00 0% 7.00 11.0"
    # Three MiB held where the formula says two.
    assert decoding == "mamba text decode 1.00 1.00 0% 3.00 2.00 +50.0% 5.00 50.0"
    assert "moe text train failed: out of memory: needed 5.1 GiB" in shown
    assert any(line.split() == ["moe", "text", "train", *"—" * 8] for line in shown)


@pytest.mark.parametrize(
    ("command", "column", "value"),
    [("latency", "p95 ms", 1.2), ("memory", "state formula", 2.0)],
)
def test_values_in_a_file(command: str, column: str, value: float, results: Path) -> None:
    path = results / "sheet.csv"
    assert main([command, str(results), f"--csv={path}"]) == 0
    table = pandas.read_csv(path)
    (row,) = table[(table["model"] == "mamba") & (table["scenario"] == "decode")].to_dict("records")
    assert row[column] == pytest.approx(value)
    assert len(table.columns) == len(set(table.columns))


def test_seeds_and_changes_are_named_where_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in (decoded("mamba", seed=0), decoded("mamba", seed=1)):
        Store(tmp_path).write(record)
    changed = decoded("mamba", config_hash="other")
    changed["cell"]["overrides"] = ["model.d_state=8"]
    Store(tmp_path).write(changed)
    shown = lines("latency", tmp_path, capsys)
    assert any("seed" in line and "changed" in line for line in shown)
    assert any("model.d_state=8" in line for line in shown)


@pytest.mark.parametrize("command", ["latency", "memory"])
def test_records_of_an_earlier_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(command, EARLIER, capsys)
    assert sum(line.startswith("transformer") for line in shown) >= 2
    assert any("Records of an earlier version" in line for line in shown)


@pytest.mark.parametrize("command", ["latency", "memory"])
def test_without_such_records_there_is_a_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path).write(make_record(scenario="quality", quality=quality()))
    assert main([command, str(tmp_path)]) == 2
    assert "no record is of scenario" in capsys.readouterr().err


def test_energy_is_shown_with_its_domains_or_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = {
        "joules": 90.0, "joules_per_item": 0.0045, "window_s": 2.0, "calls": 1000,
        "domains": {"cpu 0": 80.0, "dram 0": 10.0}, "source": "RAPL by zeus 0.16.0",
    }  # fmt: skip
    why = {"joules": None, "reason": "CPU: there is no RAPL counter"}
    timed = {"timing": {**timing(), "median_s": 0.0015}}
    for model, energy in (("mamba", counted), ("rwkv", why), ("moe", why)):
        Store(tmp_path).write(make_record(model=model, energy=energy, **timed))
    Store(tmp_path).write(make_record(model="transformer"))
    written = lines("energy", tmp_path, capsys)
    row = next(line.split() for line in written if line.startswith("mamba"))
    # 90 J in 2 s are 45 W; 1000 calls of 1.5 ms are 75 % of the window.
    for word in ("4.50", "90.0", "2.00", "45.0", "75.0"):
        assert word in row
    assert not any(line.startswith("transformer") for line in written), "it was not asked"
    text = " ".join(" ".join(written).split())
    assert "CPU: there is no RAPL counter (moe text train and 1 more)" in text
    csv = tmp_path / "out.csv"
    assert main(["energy", str(tmp_path), "--csv", str(csv)]) == 0
    table = pandas.read_csv(csv)
    assert table["mJ/item"].dropna().tolist() == [4.5]


def test_without_a_record_that_was_asked_there_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path).write(make_record())
    assert main(["energy", str(tmp_path)]) == 2
    assert "run `python -m bench energy=true` first" in capsys.readouterr().err.replace("\n", " ")
