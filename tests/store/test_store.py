"""The store keeps what it was given, whatever happens to the writers."""

import errno
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.store import Store, StoreError, locate, new_id, read_paths, validate
from bench.store.record import created
from tests.factories import items_file, make_record, quality

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from bench.store import Store
from tests.factories import make_record
store, tag = Store(sys.argv[1]), sys.argv[2]
for index in range(int(sys.argv[3])):
    record = make_record()
    record["id"] = f"{tag}-{index:05d}"
    record["config"] = {"padding": "x" * 200_000}
    store.write(record, {"items.npy": b"y" * 100_000})
    print(record["id"], flush=True)
"""


def writer(root: Path, tag: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), tag, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "results")
    record = make_record(quality=quality())
    scores = items_file([1.0, 2.0])
    path = store.write(record, {"items.npy": scores})
    assert path == tmp_path / "new" / "results" / "records" / f"{record['id']}.json"
    (read,), problems = store.read_all()
    assert problems == []
    assert {k: v for k, v in read.items() if k != "artefacts"} == dict(record)
    assert read["artefacts"] == [
        {"name": "items.npy", "bytes": len(scores), "sha256": hashlib.sha256(scores).hexdigest()}
    ]
    assert store.artefact(read, "items.npy").read_bytes() == scores
    assert store.verify() == []


def test_artefact_from_a_file(tmp_path: Path) -> None:
    source = tmp_path / "curve.bin"
    source.write_bytes(os.urandom(3_000_000))
    store = Store(tmp_path / "results")
    store.write(make_record(), {"curve.bin": source})
    (record,), _ = store.read_all()
    assert store.artefact(record, "curve.bin").read_bytes() == source.read_bytes()


def test_records_are_immutable(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for artefacts in ({}, {"a": b"1"}):
        record = make_record()
        path = store.write(record, artefacts)
        before = path.read_bytes()
        with pytest.raises(StoreError, match="records never change"):
            store.write({**record, "status": "failed"}, {"a": b"2"})
        assert path.read_bytes() == before
        assert store.verify() == []


def test_a_changed_artefact_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(), {"items.npy": b"scores"})
    (record,), _ = store.read_all()
    store.artefact(record, "items.npy").write_bytes(b"forged")
    (problem,) = store.verify()
    assert "differs from the hash" in problem.sentence
    with pytest.raises(StoreError, match="differs"):
        store.artefact(record, "items.npy")


def test_numbers_that_json_cannot_hold(tmp_path: Path) -> None:
    store = Store(tmp_path)
    figures = {"nan": math.nan, "inf": -math.inf, "single": np.float32(0.5), "count": np.int64(3)}
    store.write(make_record(figures=figures))
    (record,), problems = Store(tmp_path).read_all()
    assert problems == []
    assert record["figures"] == {"nan": None, "inf": None, "single": 0.5, "count": 3}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b'{"schema": 1, "id": "a', "truncated"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[1, 2]", "not a record"),
        (b'{"name": "somebody else"}', "'schema' is missing"),
        (b"[" * 100_000, "truncated"),
        (b'{"schema": NaN}', "NaN"),
    ],
)
def test_unreadable_files_do_not_stop_the_rest(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    (store.records / "a.json").write_bytes(content)
    store.write(make_record())
    records, problems = store.read_all()
    assert len(records) == 2
    assert [p.path.name for p in problems] == ["a.json"]
    assert sentence in problems[0].sentence


def test_a_folder_or_a_renamed_record_is_a_problem(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(make_record())
    (store.records / "copy.json").write_bytes(path.read_bytes())
    (store.records / "folder.json").mkdir()
    records, problems = store.read_all()
    assert len(records) == 1
    assert {p.path.name for p in problems} == {"copy.json", "folder.json"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "reads schema 1"),
        ({"status": "fine"}, "allowed are ok, failed, unsupported"),
        ({"created": "yesterday"}, "ISO 8601"),
        ({"created": "2026-11-24T10:00:00"}, "time zone"),
        ({"id": "../escape"}, "cannot name a file"),
        ({"cell": {"family": "mamba"}}, "'cell.model' is missing"),
        ({"quality": {"value": "good"}}, "quality.value = 'good'"),
        ({"timing": {"samples_s": [0.1, "x"]}}, "timing.samples_s[1]"),
        ({"parameters": {"total": True}}, "parameters.total"),
        ({"baselines": {"name": "uniform"}}, "baselines"),
    ],
)
def test_what_is_read_is_checked(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the sentence is compared below)
        validate({**make_record(), **change})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("section", "name", "value", "words"),
    [
        ("timing", "samples_s", [0.1, None], "timing.samples_s[1] = null"),
        ("timing", "n", 2**63, "timing.n = '9223372036854775808'"),
        ("versions", "suite", 1e20, "versions.suite = '1e+20'"),
        (None, "wall_s", 10**400, "wall_s = '1000"),
        (None, "baselines", [None], "baselines[0] = null"),
        (None, "artefacts", [None], "artefacts[0] = null"),
    ],
)
def test_what_no_table_could_show_is_refused(
    section: str | None, name: str, value: object, words: str
) -> None:
    record = json.loads(json.dumps(make_record(timing={"samples_s": [0.1, 0.2]})))
    (record[section] if section else record)[name] = value
    with pytest.raises(ValueError, match=r"where .* belongs") as caught:
        validate(record)
    assert words in str(caught.value)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-12:00"])
def test_moments_that_are_none_in_utc_are_refused(moment: str) -> None:
    with pytest.raises(ValueError, match="no moment of measuring"):
        validate(json.loads(json.dumps(make_record(created=moment))))


def test_unknown_keys_and_nulls_are_kept() -> None:
    record = validate({**make_record(), "later": {"x": 1}, "quality": None})
    assert record["later"] == {"x": 1}  # type: ignore[typeddict-item]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("a file where the folder should be")
    for root in (blocker, blocker / "results", Path("/proc/archbench")):
        with pytest.raises(StoreError, match="cannot be written"):
            Store(root).check_writable()
    good = Store(tmp_path / "results")
    good.check_writable()
    assert list(good.records.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = make_record()
    with pytest.raises(StoreError, match="could not be written"):
        store.write(record, {"items.npy": tmp_path / "missing"})
    assert list(store.records.iterdir()) == []
    assert list(store.artefacts.iterdir()) == []
    store.write(record, {"items.npy": b"now it is there"})
    with pytest.raises(StoreError, match="cannot name a file"):
        store.write(make_record(), {"../items.npy": b""})


def test_kill_at_any_instant_leaves_whole_records(tmp_path: Path) -> None:
    for attempt in range(4):
        root = tmp_path / str(attempt)
        process = writer(root, "w", 10_000)
        assert process.stdout is not None
        first = process.stdout.readline()  # it is writing now
        time.sleep(0.03 + 0.041 * attempt)
        process.send_signal(signal.SIGKILL)
        printed = {first.strip(), *process.stdout.read().split()}
        process.wait()
        store = Store(root)
        records, problems = store.read_all()
        assert problems == []
        assert store.verify() == []
        identities = {record["id"] for record in records}
        assert printed <= identities
        assert len(identities - printed) <= 1  # killed between the rename and the print
        for path in store.records.glob("*.json"):
            json.loads(path.read_bytes())


def test_writers_side_by_side(tmp_path: Path) -> None:
    processes = [writer(tmp_path, tag, 15) for tag in ("a", "b", "c")]
    processes.append(writer(tmp_path, "a", 15))  # claims the same ids as the first
    printed = [process.communicate()[0].split() for process in processes]
    assert [len(lines) for lines in printed[1:3]] == [15, 15]
    records, problems = Store(tmp_path).read_all()
    assert problems == []
    assert Store(tmp_path).verify() == []
    # each id was won by exactly one writer
    assert sorted(r["id"] for r in records) == sorted(i for lines in printed for i in lines)


def test_several_stores_and_single_files(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "one"), Store(tmp_path / "deep" / "two")
    path = one.write(make_record())
    shared = make_record()
    one.write(shared)
    two.write(shared)
    two.write(make_record())
    assert [s.root for s in locate(tmp_path)] == [two.root, one.root]
    assert len(read_paths([tmp_path])[0]) == 3
    assert len(read_paths([one.records])[0]) == 2
    assert len(read_paths([path])[0]) == 1
    with pytest.raises(StoreError, match="does not exist"):
        read_paths([tmp_path / "nowhere"])


def test_ids_are_readable_and_differ() -> None:
    record = make_record(model="my/model")
    ids = {new_id(record["cell"], created(record)) for _ in range(100)}
    assert len(ids) == 100
    assert all(i.startswith("20261124T100000-my_model-nano-text-train-s0-") for i in ids)


def test_a_full_disk_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    kept = store.write(make_record())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        store.check_writable()
    with pytest.raises(StoreError, match="could not be written"):
        store.write(make_record(), {"a.bin": b"x"})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [kept]
