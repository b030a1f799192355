"""The pipelines in docs/ci against the published schemas that check-jsonschema carries."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.ab.__main__ import parser
from bench.report.compare.verdict import EXIT_CODES, FAIL_ON

DOCS = Path(__file__).resolve().parents[1] / "docs" / "ci"


@pytest.mark.parametrize(
    ("name", "schema"),
    [("github.yml", "vendor.github-workflows"), ("gitlab.yml", "vendor.gitlab-ci")],
)
def test_pipelines_are_valid(name: str, schema: str, tmp_path: Path) -> None:
    def check(path: Path) -> int:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
        return subprocess.run(command, capture_output=True).returncode

    assert check(DOCS / name) == 0
    broken = tmp_path / name
    broken.write_text(
        (DOCS / name).read_text().replace("script:", "scripts:").replace("runs-on", "on")
    )
    assert check(broken) != 0


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_their_commands_are_known(name: str) -> None:
    text = (DOCS / name).read_text()
    words = text[text.index("python -m bench.ab") :].splitlines()
    command = " ".join(line.strip(" \\") for line in words[:3])
    arguments = command.replace('"', "").split()[3:]
    options = parser().parse_args(arguments)
    assert options.cells == ["model=transformer,mamba", "task=text", "scenario=train,decode"]


def test_the_table_of_exit_codes_is_the_one_in_use() -> None:
    rows = re.findall(
        r"^\| ([a-z ]+) \| .* \| (\d+) \| (yes|no) \|$", (DOCS / "README.md").read_text(), re.M
    )
    assert {verdict: int(code) for verdict, code, _ in rows} == EXIT_CODES
    assert {verdict for verdict, _, fails in rows if fails == "yes"} == set(FAIL_ON)
    assert f"`--fail-on={','.join(FAIL_ON)}`" in (DOCS / "README.md").read_text()
