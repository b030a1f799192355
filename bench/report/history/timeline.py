"""Which commit a record belongs to, and in which order commits stand."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bench.errors import BadInput
from bench.store import Record

SHORT = 7  # letters of a commit that are shown


@dataclass(frozen=True, order=True)
class Commit:
    """A source that records were made with; `place` orders them, `+` marks uncommitted changes."""

    place: tuple[int, str]
    key: str = field(compare=False)
    label: str = field(compare=False)
    day: str = field(compare=False)
    subject: str = field(default="", compare=False)


@dataclass(frozen=True)
class Line:
    """A commit of the first-parent line of a repository."""

    place: int
    day: str
    subject: str


def first_parents(repo: Path, *, given: bool) -> dict[str, Line]:
    """The first-parent line of HEAD, oldest first; none where a folder not `given` has no git.

    Raises BadInput where a repository that was `given` cannot be read.
    """
    done = _git(repo, "log", "--first-parent", "--reverse", "--format=%H%x09%cI%x09%s", "HEAD")
    if isinstance(done, str):
        if given:
            raise BadInput(f"--repo={repo} is no repository with a commit ({done})")
        return {}
    found = {}
    for place, line in enumerate(done):
        commit, time, subject = line.split("\t", 2)
        found[commit] = Line(place, time[:10], subject)
    return found


def resolve(repo: Path, revision: str) -> str | None:
    """The commit that a branch, tag or hash names in the repository, or None."""
    done = _git(repo, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    return None if isinstance(done, str) else done[0]


def _git(repo: Path, *arguments: str) -> list[str] | str:
    """Lines of the output, or why there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(repo), *arguments], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"git cannot be run: {error}"
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return words[0] if words else f"git ends with {done.returncode}"
    return done.stdout.decode(errors="replace").splitlines()


class Timeline:
    """The order of the commits of `records`: that of the repository, else that of their times.

    Where the repository holds some of the commits, the others (of other branches, or rewritten
    ones) have no place among them and are left out; `notes` says so. `newest` is the last commit
    that has a record, also if that failed.
    """

    def __init__(self, records: Sequence[Record], line: Mapping[str, Line], name: str) -> None:
        self._line = line if any(_hash(record) in line for record in records) else {}
        self.by_repository = bool(self._line)
        self._first: dict[str, str] = {}
        for record in records:
            key = _key(record)
            made = record["created"]
            self._first[key] = min(made, self._first.get(key, made), key=datetime.fromisoformat)
        places = [(record, self.commit(record)) for record in records]
        self.newest = max((place for _, place in places if place is not None), default=None)
        unknown = {_label(record) for record, place in places if place is None}
        order = (
            f"the first-parent history of {name}"
            if self._line
            else f"the times of their records, for {name} holds none of their commits"
        )
        self.notes = [f"Commits stand in the order of {order}."]
        if unknown:
            named = ", ".join(sorted(unknown)[:5]) + (", …" if len(unknown) > 5 else "")
            self.notes.append(
                f"Left out, for that history does not hold them: {len(unknown)} commits ({named})."
            )

    def commit(self, record: Record) -> Commit | None:
        """The place of a record; None where the repository knows others, but not this one."""
        key, label = _key(record), _label(record)
        if not self._line:
            return Commit((0, self._first[key]), key, label, self._first[key][:10])
        known = self._line.get(_hash(record) or "")
        if known is None:
            return None
        changed = self._first[key] if _dirty(record) else ""  # after the commit that it changes
        return Commit((known.place, changed), key, label, known.day, known.subject)


def _code(record: Record) -> Mapping[str, object]:
    return record.get("code") or {}


def _hash(record: Record) -> str | None:
    commit = _code(record).get("commit")
    return str(commit) if commit else None


def _dirty(record: Record) -> bool:
    return bool(_code(record).get("dirty"))


def _key(record: Record) -> str:
    """Records with the same are repetitions."""
    source = str(_code(record).get("source_sha256") or "")
    commit = _hash(record)
    return f"{commit}+{source}" if _dirty(record) else commit or f"source {source}"


def _label(record: Record) -> str:
    commit = _hash(record)
    if commit is None:
        return f"source {str(_code(record).get('source_sha256') or 'unknown')[:SHORT]}"
    return commit[:SHORT] + ("+" if _dirty(record) else "")
