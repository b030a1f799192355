"""Where a comparison goes: the flags that every comparing command has, and what they write."""

import argparse
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import given_path
from bench.errors import BadInput
from bench.report.compare.exchange import bencher, benchmark_action, document
from bench.report.compare.github import SUMMARY, add_summary, annotations
from bench.report.compare.junit import to_junit
from bench.report.compare.markdown import QUIET, from_sheets, headline, to_markdown
from bench.report.compare.sentences import sentences
from bench.report.compare.sheet import INTERVALS, sheet
from bench.report.compare.verdict import EXIT_CODES, FAIL_ON, FAILABLE, Finding, exit_code
from bench.report.sheet import Sheet, show

CODES = ", ".join(f"{code} {verdict}" for verdict, code in EXIT_CODES.items() if code)
EPILOG = f"""\
exit code: 0 nothing that is failed on; of several, the gravest: {CODES}; 2 bad input;
130 interrupted.
"""
FILES = ("markdown", "junit", "json", "benchmark_json", "bencher")


@dataclass(frozen=True)
class View:
    """What a command shows of its findings instead of one row for each.

    `quiet` are verdicts without a sentence of their own, `more` is added to the JSON document.
    """

    sheets: Sequence[Sheet]
    quiet: Collection[str] = QUIET
    more: Mapping[str, Any] = field(default_factory=dict)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Flags for verdicts that fail and for the files that are written."""
    parser.add_argument(
        "--fail-on", default=",".join(FAIL_ON), metavar="VERDICT,…",
        help=f"verdicts that fail, or none (default: {','.join(FAIL_ON)})",
    )  # fmt: skip
    parser.add_argument("--markdown", type=given_path, metavar="FILE", help="for a pull request")
    parser.add_argument("--junit", type=given_path, metavar="FILE", help="JUnit XML")
    parser.add_argument("--json", type=given_path, metavar="FILE", help="every finding")
    parser.add_argument(
        "--benchmark-json", type=given_path, metavar="FILE",
        help="for github-action-benchmark (tool: customSmallerIsBetter)",
    )  # fmt: skip
    parser.add_argument("--bencher", type=given_path, metavar="FILE", help="Bencher Metric Format")
    parser.add_argument(
        "--github", action="store_true", help="annotations, and the summary of the step"
    )


def failing(text: str) -> tuple[str, ...]:
    """The verdicts of --fail-on; BadInput for a word that is none, or that cannot fail."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return ()
    for word in words or [""]:
        if word not in FAILABLE:
            raise BadInput(
                f"--fail-on={word} is no verdict that fails; allowed: {', '.join(FAILABLE)}, "
                "or none alone"
            )
    return tuple(words)


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse what cannot be written before anything is measured."""
    failing(options.fail_on)
    taken: dict[Path, str] = {}
    for name in FILES:
        path, flag = getattr(options, name), "--" + name.replace("_", "-")
        if path is None:
            continue
        check_file(path, flag)
        if (other := taken.setdefault(path.resolve(), flag)) != flag:
            raise BadInput(f"{other} and {flag} name one file, '{path}'; give each one of its own")
    if options.github and (summary := os.environ.get(SUMMARY)):
        check_file(Path(summary), SUMMARY)


def check_file(path: Path, name: str) -> None:
    """BadInput where no file can be written there; `name` is what named it."""
    if path.is_dir():
        raise BadInput(f"{name}={path} is a folder; give a file")
    if not path.parent.is_dir():
        raise BadInput(f"{name}={path}: its folder does not exist; give one that does")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadInput(f"{name}={path} cannot be written; give a file that can")


def emit(
    findings: Sequence[Finding],
    options: argparse.Namespace,
    console: Console,
    notes: Sequence[str] = (),
    view: View | None = None,
) -> int:
    """Print the findings and write what was asked for; returns the exit code.

    A `view` of its own is shown in place of the sheet of findings.
    """
    fail_on = failing(options.fail_on)
    code = exit_code(findings, fail_on)
    for one in view.sheets if view else [sheet("Base against head", findings, [INTERVALS, *notes])]:
        show(one, console)
    quiet = view.quiet if view else QUIET
    for line in sentences(finding for finding in findings if finding.verdict not in quiet):
        console.print(line, soft_wrap=True)
    console.print(headline(findings, fail_on), soft_wrap=True)
    _write(findings, options, fail_on, notes, code, view)
    if options.github:
        for line in annotations(findings, fail_on):
            print(line)
        add_summary(_markdown(findings, fail_on, notes, view))
    return code


def _write(
    findings: Sequence[Finding],
    options: argparse.Namespace,
    fail_on: Collection[str],
    notes: Sequence[str],
    code: int,
    view: View | None,
) -> None:
    more = view.more if view else {}
    contents: dict[str, Callable[[], bytes]] = {
        "markdown": lambda: _markdown(findings, fail_on, notes, view).encode(),
        "junit": lambda: to_junit(findings, fail_on),
        "json": lambda: _json({**document(findings, code), **more}),
        "benchmark_json": lambda: _json(benchmark_action(findings)),
        "bencher": lambda: _json(bencher(findings)),
    }
    for name, content in contents.items():
        if (path := getattr(options, name)) is None:
            continue
        try:
            path.write_bytes(content())
        except OSError as error:
            raise BadInput(f"'{path}' cannot be written ({error.strerror or error})") from error


def _markdown(
    findings: Sequence[Finding], fail_on: Collection[str], notes: Sequence[str], view: View | None
) -> str:
    if view is None:
        return to_markdown(findings, fail_on, notes)
    return from_sheets(findings, fail_on, view.sheets, view.quiet)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"
