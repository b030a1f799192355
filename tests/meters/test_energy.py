"""Joules against counters whose rise is known, read through zeus itself."""

import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.meters import energy
from bench.meters.energy import Counters, measure_energy, open_counters

zeus_energy = pytest.importorskip("zeus.monitor.energy")
CPU = torch.device("cpu")
CALL_S = 0.005
RANGE_UJ = 262_143_328_850  # of a real package


def call() -> None:
    time.sleep(CALL_S)


class FakeMonitor:
    """A monitor with zeus's own type of answer: constant powers since it began."""

    def __init__(self, **watts: float) -> None:
        self.watts, self.began = watts, 0.0

    def begin_window(self, key: str) -> None:
        self.began = time.monotonic()

    def end_window(self, key: str) -> Any:
        seconds = time.monotonic() - self.began
        used = {name: {0: watts * seconds} for name, watts in self.watts.items()}
        gpu, cpu = used.get("gpu", {}), used.get("cpu")
        return zeus_energy.Measurement(seconds, gpu, cpu, used.get("dram"))


def fake(monitor: FakeMonitor) -> Any:
    @contextmanager
    def counters(device: torch.device) -> Iterator[Counters]:
        yield Counters(monitor, "fake")

    return counters


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "WINDOW_S", 0.3)
    monkeypatch.setattr(energy, "BLOCK_S", 0.05)


@pytest.mark.usefixtures("short")
def test_joules_are_power_times_the_window_by_domain() -> None:
    prepared: list[None] = []
    found = measure_energy(
        call, CALL_S, 7, CPU, lambda: prepared.append(None),
        fake(FakeMonitor(gpu=300.0, cpu=50.0, dram=5.0)),
    )  # fmt: skip
    assert found["window_s"] >= 0.3
    assert found["domains"] == pytest.approx(
        {name: watts * found["window_s"] for name, watts in
         {"gpu 0": 300.0, "cpu 0": 50.0, "dram 0": 5.0}.items()}
    )  # fmt: skip
    assert found["joules"] == pytest.approx(355.0 * found["window_s"])
    assert found["calls"] == len(prepared) > 1
    assert found["joules_per_item"] == pytest.approx(found["joules"] / found["calls"] / 7)
    assert found["source"] == "fake"
    assert found["reason"] is None


@pytest.mark.usefixtures("short")
def test_a_counter_that_stands_still_is_missing_and_not_zero() -> None:
    found = measure_energy(call, CALL_S, 1, CPU, counters=fake(FakeMonitor(cpu=0.0)))
    assert found["joules"] is None
    assert found["joules_per_item"] is None
    assert found["domains"] is None
    assert found["reason"] == "the counter of cpu 0 did not move"
    part = measure_energy(call, CALL_S, 1, CPU, counters=fake(FakeMonitor(cpu=9.0, dram=0.0)))
    assert list(part["domains"]) == ["cpu 0"]
    assert part["reason"] == "the counter of dram 0 did not move"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("watts", "still"), [({"gpu": 0.0, "cpu": 50.0}, "gpu"), ({"gpu": 300.0, "cpu": 0.0}, "cpu")]
)
def test_a_part_does_not_pass_for_the_whole(watts: dict[str, float], still: str) -> None:
    found = measure_energy(call, CALL_S, 1, CPU, counters=fake(FakeMonitor(**watts)))
    assert [found[name] for name in ("joules", "joules_per_item", "domains")] == [None] * 3
    assert found["reason"] == f"the counter of {still} 0 did not move"


class Powercap:
    """A tree as the kernel's, whose counters a thread moves at constant powers."""

    def __init__(self, root: Path) -> None:
        self.root, self.stop = root, threading.Event()
        self.thread = threading.Thread(target=self._move)
        self.zones: list[tuple[Path, float, int]] = []

    def zone(self, path: str, name: str, watts: float, start_uj: int = 10**9) -> None:
        folder = self.root / path
        folder.mkdir(parents=True)
        (folder / "name").write_text(name)
        (folder / "max_energy_range_uj").write_text(str(RANGE_UJ))
        (folder / "energy_uj").write_text(str(start_uj))
        self.zones.append((folder, watts, start_uj))

    def start(self) -> None:
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()

    def _move(self) -> None:
        began = time.monotonic()
        while not self.stop.wait(0.005):
            for folder, watts, start in self.zones:
                used = int((time.monotonic() - began) * watts * 1e6)
                # In place and of one length, so that no reader finds an empty file.
                with open(folder / "energy_uj", "r+") as counter:
                    counter.write(f"{(start + used) % RANGE_UJ:012d}")


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Powercap]:
    import zeus.device.cpu as cpu
    from zeus.device.cpu import rapl

    root = tmp_path / "intel-rapl"
    root.mkdir()
    monkeypatch.setattr(rapl, "RAPL_DIR", str(root))
    monkeypatch.setattr(cpu, "_cpus", None)
    monkeypatch.delenv(energy.REMOTE, raising=False)
    rapl.rapl_is_available.cache_clear()
    tree = Powercap(root)
    yield tree
    tree.end()
    rapl.rapl_is_available.cache_clear()


@pytest.mark.usefixtures("short")
def test_rapl_is_read_through_zeus(powercap: Powercap, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    powercap.zone("intel-rapl:0", "package-0", 40.0)
    powercap.zone("intel-rapl:0/intel-rapl:0:0", "dram", 4.0)
    powercap.zone("intel-rapl:1", "psys", 100.0)  # holds the package
    powercap.start()
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(energy, "WINDOW_S", 1.0)
    before = multiprocessing.active_children()
    found = measure_energy(call, CALL_S, 3, CPU)
    assert found["reason"] is None
    assert set(found["domains"]) == {"cpu 0", "dram 0"}
    assert found["domains"]["cpu 0"] / found["window_s"] == pytest.approx(40.0, rel=0.1)
    assert found["joules"] / found["window_s"] == pytest.approx(44.0, rel=0.1)
    assert found["source"].startswith("RAPL by zeus ")
    assert multiprocessing.active_children() == before, "a helper of zeus is left"


def test_rapl_for_root_alone_is_missing_with_that_reason(
    powercap: Powercap, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeus.device.cpu import rapl
    from zeus.device.cpu.common import ZeusCPUNoPermissionError

    powercap.zone("intel-rapl:0", "package-0", 40.0)

    def denied(*_: object) -> None:  # a test that runs as root can read every file
        raise ZeusCPUNoPermissionError("Can't read file due to permission error")

    monkeypatch.setattr(rapl, "RAPLFile", denied)
    found = measure_energy(call, CALL_S, 1, CPU)
    assert found["joules"] is None
    assert "read by root alone" in found["reason"]


def test_without_counters_there_is_a_reason_and_no_figure(
    powercap: Powercap, monkeypatch: pytest.MonkeyPatch
) -> None:
    powercap.root.rmdir()
    found = measure_energy(call, CALL_S, 1, CPU)
    assert found["joules"] is None
    assert "calls" not in found
    assert found["reason"] == f"CPU: there is no RAPL counter ({powercap.root} is missing)"
    monkeypatch.setenv(energy.REMOTE, "10.0.0.1:4938")
    with open_counters(CPU) as counters:
        assert counters.monitor is None
        assert "no other machine is asked" in counters.reasons[0]


def test_without_zeus_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zeus.monitor", None)
    found = measure_energy(call, CALL_S, 1, CPU)
    assert found["joules"] is None
    assert "install extra energy" in found["reason"]


def test_a_gpu_that_cannot_be_read_leaves_no_figure(
    powercap: Powercap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's Joules alone would pass for those of a CUDA cell."""
    if torch.cuda.is_available():
        import zeus.device
        from zeus.device.gpu.common import ZeusGPUInitError

        def denied() -> None:
            raise ZeusGPUInitError("NVML does not answer")

        monkeypatch.setattr(zeus.device, "get_gpus", denied)
    powercap.zone("intel-rapl:0", "package-0", 40.0)
    found = measure_energy(call, CALL_S, 1, torch.device("cuda"))
    assert found["joules"] is None
    assert found["reason"].startswith("GPU: ")
