"""Arguments that several commands share."""

import argparse

import pytest

from bench.arguments import add_paths


def test_an_empty_path_is_not_this_folder(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_paths(parser)
    assert str(parser.parse_args(["a/b"]).paths[0]) == "a/b"
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([""])  # what "$UNSET" is in a shell
    assert stopped.value.code == 2
    assert "a path is empty; give a folder or a file" in capsys.readouterr().err
