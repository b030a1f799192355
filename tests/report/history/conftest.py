"""A repository that tests of a folder share."""

from pathlib import Path

import pytest

from tests.report.history.commits import COUNT, git, repository


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("repo")
    commits = repository(folder, COUNT)
    git(folder, "tag", "v1", commits[9])
    return folder, commits
