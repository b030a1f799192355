"""A comparison in GitHub Actions: annotations on standard output, and the step's summary."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from bench.errors import BadInput
from bench.report.compare.verdict import Finding

SUMMARY = "GITHUB_STEP_SUMMARY"
WARNED = ("slower", "worse", "changed", "not comparable", "ambiguous")


def annotations(findings: Sequence[Finding], fail_on: Collection[str]) -> list[str]:
    """Workflow commands: an error for what fails, a warning for the rest that is not the same."""
    lines = []
    for finding in findings:
        if finding.verdict in fail_on:
            level = "error"
        elif finding.verdict in WARNED:
            level = "warning"
        else:
            continue
        title = _property(f"{finding.verdict}: {finding.name}")
        lines.append(f"::{level} title={title}::{_message(finding.reason)}")
    return lines


def _message(text: str) -> str:
    """Escaped as GitHub's own toolkit (@actions/core, command.ts) does it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def add_summary(markdown: str) -> bool:
    """Append to the step's summary; False where no step is running."""
    path = os.environ.get(SUMMARY)
    if not path:
        return False
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(markdown)
    except OSError as error:
        raise BadInput(f"{SUMMARY}={path} cannot be written ({error.strerror})") from error
    return True
