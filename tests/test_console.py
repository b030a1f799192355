"""Text for people is printed as it stands."""

import io
from pathlib import Path

import pytest

from bench.console import make_console
from bench.progress import Display
from bench.report.sheet import Entry, Sheet, show

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (
    "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator",
    "[ci] a [/subject]",
    ":bug: 12",
)


@pytest.mark.parametrize("text", TEXTS)
def test_brackets_and_names_of_emoji_stay(text: str) -> None:
    stream = io.StringIO()
    make_console(stream).print(text, soft_wrap=True)
    assert stream.getvalue() == text + "\n"
    sheet = Sheet(text, [text], [[Entry(text)]], [text])
    show(sheet, make_console(stream))
    assert stream.getvalue().count(text) == 5
    assert "\\" not in stream.getvalue()


def test_the_live_line_holds_names_with_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    with Display(stream, []) as display:
        display.progress.update(display.task, description="[a] [/b]", refresh=True)
    assert display.live
    assert "[a] [/b]" in stream.getvalue()


def test_every_console_is_of_that_kind() -> None:
    files = [
        path for part in ("bench", "benchmarks", "scripts") for path in (ROOT / part).rglob("*.py")
    ]
    own = [path.name for path in files if "Console(" in path.read_text(encoding="utf-8")]
    assert own == ["console.py"]
