"""What a comparison writes, against the formats of those who read it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from bench.report.__main__ import main
from bench.report.compare.exchange import bencher, benchmark_action, document
from bench.report.compare.github import annotations
from bench.report.compare.junit import to_junit
from bench.report.compare.markdown import to_markdown
from bench.report.compare.sentences import sentences
from bench.report.compare.sheet import sheet
from bench.report.compare.verdict import Finding
from bench.store import Store
from tests.factories import make_record
from tests.report.compare.records import scores, steps

FINDINGS = [
    Finding("mamba · text", "time of a call", "slower", "it is 10 % slower: a, b\nsecond line", "s",
            0.02, 0.022, 1.1, 1.08, 1.12, 0.001, 10, 10, 0.04),
    Finding("mamba · text", "state bytes", "changed", "was 5 and is 6", "exact", 5.0, 6.0, 1.2),
    Finding("mamba · text", "bits_per_byte", "ambiguous", "one seed | cannot tell", "bits_per_byte",
            2.0, 2.1, 1.05, math.nan, math.nan),
    Finding("rwkv · text", "time of a call", "same", "within 5 %", "s", 0.1, 0.1, 1.0, 0.99, 1.01),
]  # fmt: skip
FAIL_ON = ("slower",)
# The schema that Bencher publishes (https://bencher.dev/docs/reference/bencher-metric-format).
METRIC = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
    "required": ["value"],
    "additionalProperties": False,
}
BMF = {
    "type": "object",
    "patternProperties": {".+": {"type": "object", "patternProperties": {".+": METRIC}}},
}


def test_markdown_says_first_what_fails() -> None:
    text = to_markdown(FINDINGS, FAIL_ON, ["a note"])
    lines = text.splitlines()
    assert lines[2] == "**Fails: 1 slower, 1 changed, 1 ambiguous, 1 same. Fails on slower.**"
    assert text.index("10 % slower") < text.index("<details>")
    assert r"one seed | cannot tell" in text
    assert text.endswith("a note\n")


def test_markdown_tells_new_cells_from_unchanged_ones() -> None:
    new = Finding("moe · text", "result", "new", "base has no record of it")
    text = to_markdown([*FINDINGS, new], FAIL_ON, [])
    first, second = text.split("<details>")[1:]
    assert "<summary>1 that base has no result of</summary>" in first
    assert ("moe" in first, "rwkv" in first) == (True, False)
    assert "<summary>1 without a change</summary>" in second
    assert ("moe" in second, "rwkv" in second) == (False, True)


def test_a_reason_that_many_cells_share_is_said_once() -> None:
    def machines(count: int) -> list[Finding]:
        cells = [f"mamba · {task}" for task in "abcde"[:count]]
        why = "was not measured alike (machine: a and b)"
        return [Finding(cell, "result", "not comparable", f"{cell} {why}") for cell in cells]

    assert sentences(machines(3)) == [f"not comparable: {one.reason}" for one in machines(3)]
    (line,) = sentences(machines(5))
    assert line == (
        "not comparable: 5 times, from mamba · a to mamba · e: "
        "was not measured alike (machine: a and b)"
    )
    times = [
        Finding(f"{n}", "time of a call", "ambiguous", f"{n}, time of a call: 1 process a side")
        for n in range(4)
    ]
    assert sentences([times[0], *machines(1), *times[1:]]) == [
        "ambiguous: 4 times, from 0, time of a call to 3, time of a call: 1 process a side",
        f"not comparable: {machines(1)[0].reason}",
    ]
    assert to_markdown(machines(5), FAIL_ON, []).count("machine: a and b") == 1


def test_junit_counts_what_it_holds() -> None:
    root = ElementTree.fromstring(to_junit(FINDINGS, FAIL_ON))
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "4", "1")
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["mamba · text", "rwkv · text"]
    for suite in suites:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases)
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
        assert all(case.get("classname") and case.get("name") for case in cases)
    (failure,) = root.findall("testsuite/testcase/failure")
    assert failure.get("type") == "slower"


@pytest.mark.parametrize("verdict", ["slower", "ambiguous", "same"])
def test_junit_is_xml_whatever_a_reason_holds(verdict: str) -> None:
    text = "\x1b[31mred\x1b[0m \x00 \ud800 \ufffe <&> tab\tline\n\U0001f600"
    found = [Finding(text, text, verdict, text)]
    (case,) = ElementTree.fromstring(to_junit(found, FAIL_ON)).iter("testcase")
    shown = "�[31mred�[0m � � � <&> tab\tline\n\U0001f600"
    assert case.get("name") == shown
    assert case.findtext("system-out") == f"{verdict}: {shown}"
    assert [entry.get("message") for entry in case if entry.tag == "skipped"] == (
        [shown] if verdict == "ambiguous" else []
    )


def test_what_is_held_against_something_else_keeps_its_name_apart() -> None:
    one = FINDINGS[0]
    found = [one, replace(one, against="pinned"), replace(one, against="change", at="abc1234")]
    root = ElementTree.fromstring(to_junit(found, FAIL_ON))
    names = ["time of a call", "time of a call (against the pinned)", "time of a call (at abc1234)"]
    assert [case.get("name") for case in root.iter("testcase")] == names
    assert [str(row[2]) for row in sheet("", found).rows] == names
    titles = [line.partition("::it")[0] for line in annotations(found, FAIL_ON)]
    assert titles == [f"::error title=slower%3A {name}" for name in names]


def test_each_metric_is_exported_once_from_base_alone() -> None:
    others = [
        replace(finding, against=against, at="abc1234", base=1.0, low=0.0, high=9.0)
        for finding in FINDINGS
        for against in ("pinned", "change")
    ]
    assert bencher([*FINDINGS, *others]) == bencher(FINDINGS)
    assert benchmark_action([*FINDINGS, *others]) == benchmark_action(FINDINGS)
    assert len(document([*FINDINGS, *others], 0)["findings"]) == 3 * len(FINDINGS)


def test_annotations_are_escaped_for_github() -> None:
    lines = annotations(FINDINGS, FAIL_ON)
    assert lines[0] == (
        "::error title=slower%3A time of a call::it is 10 %25 slower: a, b%0Asecond line"
    )
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::warning", "::warning"]


def test_bencher_reads_it() -> None:
    found = json.loads(json.dumps(bencher(FINDINGS), allow_nan=False))
    jsonschema.validate(found, BMF)
    latency = found["mamba · text"]["latency"]
    assert latency["value"] == pytest.approx(0.022e9)  # nanoseconds
    assert latency["lower_value"] < latency["value"] < latency["upper_value"]
    assert all(len(name) <= 64 for measures in found.values() for name in measures)


def test_benchmark_action_reads_it() -> None:
    found = json.loads(json.dumps(benchmark_action(FINDINGS), allow_nan=False))
    assert all({"name", "unit", "value"} <= entry.keys() for entry in found)
    assert all(isinstance(entry["value"], float) for entry in found)
    assert {entry["unit"] for entry in found} == {"s", "exact"}  # scores are not smaller-is-better


def test_the_document_is_strict_json() -> None:
    text = json.dumps(document(FINDINGS, 10), allow_nan=False)
    assert json.loads(text)["findings"][2]["low"] is None


def store(folder: Path, records: list) -> Path:
    for record in records:
        Store(folder).write(record)
    return folder


def test_the_command_writes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = store(tmp_path / "base", steps(10) + scores({0: 2.0}))
    head = store(tmp_path / "head", steps(10, 0.03, draw=1) + scores({0: 2.0}))
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = {name: tmp_path / f"{name}.out"
             for name in ("markdown", "junit", "json", "benchmark-json", "bencher")}  # fmt: skip
    flags = [f"--{name}={path}" for name, path in files.items()]
    assert main(["compare", str(base), str(head), "--github", *flags]) == 10
    said = capsys.readouterr().out
    assert "::error title=slower" in said
    assert summary.read_text() == files["markdown"].read_text()
    assert json.loads(files["json"].read_text())["exit_code"] == 10
    assert all(path.stat().st_size > 10 for path in files.values())
    assert main(["compare", str(base), str(head), "--fail-on=none"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--fail-on=slowest"], "--fail-on=slowest is no verdict that fails; allowed: slower"),
        (["--fail-on=same"], "--fail-on=same is no verdict that fails; allowed: slower"),
        (["--fail-on="], "--fail-on= is no verdict that fails; allowed: slower"),
        (["--fail-on=none,slower"], "or none alone"),
        (["--json={tmp}"], "--json={tmp} is a folder; give a file"),
        (
            ["--json={tmp}/a", "--benchmark-json={tmp}/b/../a"],
            "--json and --benchmark-json name one file, '{tmp}/b/../a'",
        ),
        (["--github"], "GITHUB_STEP_SUMMARY={tmp} is a folder"),
        (["--junit=/nowhere/x.xml"], "--junit=/nowhere/x.xml: its folder does not exist"),
        (["--within=2"], "--within=2 is no share"),
        (["--noise=/nowhere/noise.json"], "/nowhere/noise.json' cannot be read"),
        (["--pinned=/nowhere"], "'/nowhere' does not exist"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    flags: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    base = store(tmp_path / "base", steps(1))
    (tmp_path / "b").mkdir()
    given = [flag.format(tmp=tmp_path) for flag in flags]
    assert main(["compare", str(base), str(base), *given]) == 2
    printed = capsys.readouterr()
    assert words.format(tmp=tmp_path) in printed.err
    assert printed.out == ""


def test_a_file_that_may_not_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = store(tmp_path / "base", steps(1))
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    assert main(["compare", str(base), str(base), f"--json={tmp_path / 'x.json'}"]) == 2
    printed = capsys.readouterr()
    assert f"--json={tmp_path}/x.json cannot be written" in printed.err
    assert printed.out == ""


def test_a_reason_is_printed_with_its_brackets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "[enforce fail at alloc_cpu.cpp:117] no memory [/tmp/x]"
    base = store(tmp_path / "base", steps(1))
    head = store(tmp_path / "[head]", [make_record(status="failed", reason=reason)])
    assert main(["compare", str(base), str(head)]) == 11
    assert f"failed: {reason}\n" in capsys.readouterr().out
    accepted = tmp_path / "[/accepted]"
    assert main(["baseline", "update", str(base), "--to", str(accepted)]) == 0
    assert f"{accepted}: 1 records" in capsys.readouterr().out


def test_floors_of_this_machine_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = store(tmp_path / "b", steps(10)), store(tmp_path / "h", steps(10, 0.021, draw=1))
    assert main(["compare", str(base), str(head)]) == 10
    name = "transformer · nano · text · train (device=cpu dtype=float32 threads=2 suite=quick)"
    for kind, code in (("apart", 0), ("in turns", 10)):
        floors = {"machine-1": {kind: {f"{name} · time of a call": 0.08}}}
        (base / "noise.json").write_text(json.dumps(floors))
        assert main(["compare", str(base), str(head)]) == code
    (base / "noise.json").write_text("[1]")
    assert main(["compare", str(base), str(head)]) == 2
    assert "holds no floors of noise" in capsys.readouterr().err


def test_creep_is_seen_against_the_pinned_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = store(tmp_path / "last", steps(10, 0.0206, draw=2))
    pinned = store(tmp_path / "pinned", steps(10))
    head = store(tmp_path / "head", steps(10, 0.021, draw=1))
    assert main(["compare", str(last), str(head)]) == 0
    assert main(["compare", str(last), str(head), f"--pinned={pinned}"]) == 10
    assert "against the pinned" in capsys.readouterr().out


def test_pinned_findings_say_so_and_stand_by_their_gravity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = store(tmp_path / "base", steps(10) + steps(1, model="mamba"))
    pinned = store(tmp_path / "pinned", steps(10, 0.018))
    head = store(tmp_path / "head", steps(10, draw=1))
    report = tmp_path / "report.json"
    flags = [f"--pinned={pinned}", f"--json={report}"]
    assert main(["compare", str(base), str(head), *flags]) == 10
    assert f"\nslower: against the pinned {pinned}: transformer" in capsys.readouterr().out
    found = json.loads(report.read_text())["findings"]
    # The pinned release is slower, and graver than the cell that base alone has.
    told = [(finding["verdict"], finding["against"]) for finding in found]
    assert told[:2] == [("slower", "pinned"), ("not comparable", "base")]
    assert not any("(" in finding["metric"] for finding in found)
