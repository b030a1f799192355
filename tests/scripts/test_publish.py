"""Publishing a run: what is kept, and what is refused before anything is replaced."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.store import Record
from scripts.publish import Refused, check_readme, main, publish, span
from tests.factories import make_record, quality

HEAD = "As a machine printed it on 2020-01-01, in 9 min 9 s.\n"


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with something published; `bench` in it prints a table of its own."""
    root = tmp_path / "checkout"
    (root / "results" / "published" / "records").mkdir(parents=True)
    (root / "results" / "published" / "records" / "old.json").write_text("{}")
    (root / "bench").mkdir()
    (root / "bench" / "report.py").write_text("import sys; print('TABLE of', *sys.argv[2:])\n")
    (root / "README.md").write_text(f"{HEAD}```text\nold table\n```\n\n```text\nother\n```\n")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "x")
    return root


def run(folder: Path, records: list[Record]) -> Path:
    """A results folder with `records`, and artefacts that are kept or not."""
    (folder / "records").mkdir(parents=True)
    for record in records:
        (folder / "records" / f"{record['id']}.json").write_text(json.dumps(record))
        artefacts = folder / "artefacts" / record["id"]
        artefacts.mkdir(parents=True)
        for name in ("items.npy", "curve.json", "checkpoint.safetensors", "log.txt"):
            (artefacts / name).write_text(name)
    return folder


def finished(**changes: Any) -> list[Record]:
    return [
        make_record(scenario="train", created="2026-11-24T10:00:30+00:00", wall_s=30.0, **changes),
        make_record(
            scenario="quality", created="2026-11-24T23:02:10+00:00", wall_s=100.4, quality=quality()
        ),
    ]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_replaces_what_was_published(root: Path, tmp_path: Path) -> None:
    step, score = finished()
    published = publish(run(tmp_path / "run", [step, score]), root)
    assert files(published) == {
        f"records/{step['id']}.json", f"records/{score['id']}.json",
        f"artefacts/{score['id']}/items.npy", f"artefacts/{score['id']}/curve.json",
    }  # fmt: skip
    assert (root / "README.md").read_text() == (
        HEAD.replace("2020-01-01, in 9 min 9 s", "2026-11-24, from cells that took 2 min 10 s")
        + "```text\nTABLE of results/published\n```\n\n```text\nother\n```\n"
    )


def test_another_suite_has_a_folder_of_its_own_and_leaves_the_readme(
    root: Path, tmp_path: Path
) -> None:
    records = finished()
    for record in records:
        record["cell"]["suite"] = "standard"
    before = (root / "README.md").read_text()
    published = publish(run(tmp_path / "run", records), root)
    assert published == root / "results" / "published-standard"
    assert (root / "README.md").read_text() == before
    assert (root / "results" / "published" / "records" / "old.json").exists()


def test_the_time_is_that_of_all_cells_without_a_pause_between_them() -> None:
    assert span(finished()) == ("2026-11-24", "2 min 10 s")


def test_what_was_published_can_be_published_again() -> None:
    text = HEAD.replace("in 9 min 9 s", "from cells that took 2 min 10 s")
    check_readme(f"{text}```text\ntable\n```\n")
    check_readme((Path(__file__).resolve().parents[2] / "README.md").read_text())


def test_a_failed_cell_that_was_run_again_is_judged_by_the_last(root: Path, tmp_path: Path) -> None:
    step, score = finished()
    failed = make_record(
        scenario="train", created="2026-11-24T09:00:00+00:00", status="failed", reason="crash"
    )
    failed["key"] = step["key"]
    published = publish(run(tmp_path / "run", [failed, step, score]), root)
    assert {path.stem for path in published.glob("records/*")} == {step["id"], score["id"]}


def section(name: str, **changes: Any) -> Record:
    """A record with other values in one of its sections."""
    record = make_record(model="mamba")
    return {**record, name: {**record[name], **changes}}  # type: ignore[misc, literal-required]


def without(name: str) -> Record:
    """A record that lacks a section."""
    return {k: v for k, v in make_record(model="mamba").items() if k != name}  # type: ignore[return-value]


FAILED = make_record(model="mamba", status="failed", reason="time-out: not finished")
WRONG = {
    "failed": (FAILED, r"1 cells .* failed \(mamba · text · train · seed 0: time-out.*run them"),
    "suite": (section("cell", suite="smoke"), "more than one suite: quick, smoke"),
    "version": (section("versions", suite=2), "more than one version of the suite: 1, 2"),
    "machine": (section("environment", machine_key="m2"), "one machine: m2, machine-1"),
    "source": (section("code", source_sha256="bbbb"), "more than one source: aaaa1111, bbbb"),
    "dirty": (section("code", dirty=True), "such as mamba .* uncommitted changes"),
    "no git": (section("code", dirty=None), "outside of git or where git failed"),
    "no code": (without("code"), r"a record, mamba · text · train · seed 0, that names no source"),
    "no versions": (without("versions"), "that names no version of the suite"),
    "no environment": (without("environment"), "that names no machine"),
    "no suite": (section("cell", suite=None), "that names no suite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_finished_run_is_refused(name: str, root: Path, tmp_path: Path) -> None:
    record, sentence = WRONG[name]
    with pytest.raises(Refused, match=sentence):
        publish(run(tmp_path / "run", [*finished(), record]), root)
    untouched(root)


def untouched(root: Path) -> None:
    assert files(root / "results") == {"published/records/old.json"}
    assert "old table" in (root / "README.md").read_text()


def test_a_checkout_with_changes_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "bench" / "report.py").write_text("changed")
    with pytest.raises(Refused, match=re.escape("such as in bench/report.py; commit them")):
        publish(run(tmp_path / "run", finished()), root)
    untouched(root)


def test_a_readme_without_a_place_is_refused_before_anything_is_replaced(
    root: Path, tmp_path: Path
) -> None:
    (root / "README.md").write_text("nothing to replace")
    git(root, "commit", "-am", "x")
    with pytest.raises(Refused, match="no text block"):
        publish(run(tmp_path / "run", finished()), root)
    assert files(root / "results") == {"published/records/old.json"}


def test_the_published_folder_itself_is_refused(root: Path) -> None:
    folder = root / "results" / "published"
    (folder / "records" / "old.json").unlink()
    (record, _) = finished()
    mine = folder / "records" / f"{record['id']}.json"
    mine.write_text(json.dumps(record))
    with pytest.raises(Refused, match="stands published"):
        publish(folder, root)
    assert mine.exists()


@pytest.mark.parametrize("content", [None, [], ["no record"]])
def test_bad_input_is_one_sentence_and_exit_code_2(
    content: list[str] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "records").mkdir()
    for text in content or []:
        (tmp_path / "records" / "bad.json").write_text(text)
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(tmp_path) in said
    assert len(said.splitlines()) == 1
    assert main([]) == 2


def test_it_runs_as_a_file(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "publish.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no folder of records" in done.stderr
