"""A comparison as JUnit XML: a suite a cell, a test case a metric."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from xml.etree import ElementTree

from bench.report.compare.verdict import Finding


def to_junit(findings: Sequence[Finding], fail_on: Collection[str]) -> bytes:
    """The document; a verdict in `fail_on` is a failure, one that cannot be told is skipped."""
    cells: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        cells[finding.cell].append(finding)
    failures = sum(finding.verdict in fail_on for finding in findings)
    root = ElementTree.Element(
        "testsuites", name="archbench", tests=str(len(findings)), failures=str(failures)
    )
    for cell, found in cells.items():
        _suite(root, cell, found, fail_on)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(
    root: ElementTree.Element, cell: str, findings: Sequence[Finding], fail_on: Collection[str]
) -> None:
    failed = [finding for finding in findings if finding.verdict in fail_on]
    untold = [f for f in findings if f.verdict not in fail_on and f.verdict == "ambiguous"]
    suite = ElementTree.SubElement(
        root, "testsuite", name=cell, tests=str(len(findings)), failures=str(len(failed)),
        errors="0", skipped=str(len(untold)), time="0",
    )  # fmt: skip
    for finding in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=cell, name=finding.metric, time="0"
        )
        if finding in failed:
            failure = ElementTree.SubElement(
                case,
                "failure",
                type=finding.verdict,
                message=f"{finding.verdict}: {finding.reason}",
            )
            failure.text = finding.reason
        elif finding in untold:
            ElementTree.SubElement(case, "skipped", message=finding.reason)
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"{finding.verdict}: {finding.reason}"
