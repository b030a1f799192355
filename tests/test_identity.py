"""What a result's identity holds: the user's own modules, and whether git knows the source."""

from pathlib import Path

import pytest

from bench import identity


@pytest.mark.parametrize("name", ["mymodel.py", "mymodel/__init__.py", "mymodel/part.py"])
def test_an_edit_of_the_users_own_module_is_another_source(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(identity, "project_hash", lambda _: "ours")
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)

    def source() -> str:
        return identity.source_hash.__wrapped__(("mymodel",))

    before = source()
    seen = {before}
    for text in ("width = 8\n", "width = 9\n"):
        file.write_text(text)
        seen.add(source())
    assert len(seen) == 3
    assert source() in seen
    assert identity.source_hash.__wrapped__(("mymodel.sub", "sys", "nobody")) == source()


@pytest.mark.parametrize(
    ("status", "dirty"), [("", False), (" M bench/run.py", True), (None, None)]
)
def test_where_git_fails_nothing_is_called_clean(
    status: str | None, dirty: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "source_hash", lambda _: "ours")
    (tmp_path / ".git").touch()
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    answers = {"rev-parse": "abc", "status": status}
    monkeypatch.setattr(identity, "_git", lambda word, *_: answers[word])
    found = identity.code.__wrapped__(())
    assert (found["commit"], found["dirty"]) == ("abc", dirty)
