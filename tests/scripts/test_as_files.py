"""Scripts are run as files, where their own folder stands in place of the checkout."""

from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_checkout_is_found_before_anything_of_it_is_imported(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    (found,) = (n for n, line in enumerate(lines) if line.startswith("sys.path.insert(0, str("))
    ours = [n for n, line in enumerate(lines) if line.startswith(("from bench", "from tests"))]
    assert found < min(ours)
