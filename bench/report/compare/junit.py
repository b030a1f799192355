"""A comparison as JUnit XML: a suite a cell, a test case a metric."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from xml.etree import ElementTree

from bench.report.compare.verdict import Finding

# What no document may hold, also escaped (XML 1.0, section 2.2): colours of a terminal, for one.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
        _suite(root, _legal(cell), found, fail_on)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _legal(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


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
            suite, "testcase", classname=cell, name=_legal(finding.name), time="0"
        )
        reason = _legal(finding.reason)
        said = f"{finding.verdict}: {reason}"
        if finding in failed:
            failure = ElementTree.SubElement(case, "failure", type=finding.verdict, message=said)
            failure.text = reason
        elif finding in untold:
            ElementTree.SubElement(case, "skipped", message=reason)
        ElementTree.SubElement(case, "system-out").text = said
