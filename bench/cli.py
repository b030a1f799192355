"""The command line: the Hydra application, and the words that need none of it.

Hydra's grammar stands in `overrides`, its errors here; the worker alone instantiates.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.constants import ROOT
from bench.errors import BadInput, describe, hint, one_line, unknown
from bench.process.interrupt import polite_kills

CONFIGS = ROOT / "configs"
WORKER = "bench.worker:run_cell"
BY_TASK = ("suite.items", "suite.weight_decay")  # mappings that take new keys
WORDS = ("list", "doctor", "table", "records")
USAGE = """\
usage: python -m bench [WORD | KEY=VALUE ...] [-m] [--cfg] [--debug] [--help]

  python -m bench                                seven families on every task (suite quick)
  python -m bench model=mamba                    one family
  python -m bench model=mamba,rwkv size=nano,tiny    a sweep (-m is accepted, not needed)
  python -m bench list | doctor                  what there is | which backends work here
  python -m bench table [results/...]            the table again, from the records
  python -m bench records --help                 list, merge, prune, query and export records
  python -m bench.save | bench.eval --help       write a checkpoint | lm-evaluation-harness

groups    model objective task scenario size match suite device   see `python -m bench list`
axes      seed dtype threads compile backend             groups and axes take lists: seed=0,1,2
run       results=FOLDER output=table|json force=true plan=true budget=30min timeout=SECONDS
          memory_limit_gib=N isolation=server|fresh repeats=N busy_gpu=record|refuse
          energy=true allow_targets=[PACKAGE]
          'hydra.searchpath=[FOLDER]'
inside    model.backbone.d_model=64  task.path=FILE  suite.items.text=512  lr=0.01  optimizer.clip=1
          match.target=3min

--cfg     print the composed configuration of one cell and run nothing
--debug   show tracebacks (as HYDRA_FULL_ERROR=1 does)

exit code 0  every cell is a result (or says why it cannot be)
          1  some cell failed; its record has the reason
          2  bad input; one sentence says which
        130  interrupted; every finished record is kept
"""


def main(argv: Sequence[str] | None = None, *, worker: str = WORKER) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        with polite_kills():
            code = _dispatch([a for a in arguments if a != "--debug"], worker)
            sys.stdout.flush()  # what cannot be printed is told here, not when Python ends
            return code
    except KeyboardInterrupt:
        print("interrupted; every finished record is kept", file=sys.stderr)
        return 130
    except BadInput as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe has gone, as `| head` does: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more can be printed there
            where = f"'{error.filename}'" if error.filename else "the output"
            print(f"error: {where} cannot be written ({error.strerror})", file=sys.stderr)
            return 2
        # A defect of ours: one line all the same, and never success.
        if debug:
            traceback.print_exc()
        print(f"error: unexpected {describe(error)} (--debug shows where)", file=sys.stderr)
        return 1


def _dispatch(arguments: list[str], worker: str) -> int:
    if arguments and arguments[0] == "records":
        from bench.records.command import main as records

        return records(arguments[1:])
    if arguments and arguments[0] == "table":
        from bench.report.__main__ import main as report

        return report(arguments)
    if "--help" in arguments or "-h" in arguments:
        print(USAGE, end="")
        return 0
    from bench.precheck import warn_of_shadows

    warn_of_shadows(refuse=not arguments or arguments[0] not in WORDS)
    if arguments and arguments[0] == "doctor":
        from bench.doctor import doctor

        _no_more("doctor", arguments[1:])
        return doctor()
    flags = [a for a in arguments if a.startswith("-")]
    for flag in flags:
        if flag not in ("-m", "--multirun", "--cfg"):
            known = ["--multirun", "--cfg", "--debug", "--help"]
            raise BadInput(
                f"{flag} is no flag; allowed: -m, {', '.join(known)}.{hint(flag, known)}"
            )
    words = [a for a in arguments if not a.startswith("-")]
    listing = bool(words) and words[0] == "list"
    for word in words[1:] if listing else words:
        if "=" not in word and not word.startswith("~"):
            raise BadInput(
                f"'{word}' is neither a word nor key=value; words: {', '.join(WORDS)}."
                f"{hint(word, WORDS)}"
            )
    app = Application(words[1:] if listing else words)
    if listing:
        from bench.listing import listing as show

        return show(app)
    if "--cfg" in flags:
        from omegaconf import OmegaConf

        config = app.compose(app.first_point())
        print(OmegaConf.to_yaml(config), end="")
        return 0
    return app.run(worker)


def _no_more(word: str, rest: Sequence[str]) -> None:
    if rest:
        raise BadInput(f"{word} takes no arguments, '{rest[0]}' was given.")


class Application:
    """What was given on one command line, and Hydra to compose it with."""

    def __init__(self, overrides: Sequence[str]) -> None:
        from hydra import initialize_config_dir
        from hydra.core.config_store import ConfigStore
        from hydra.core.global_hydra import GlobalHydra

        from bench.config import Config
        from bench.overrides import Overrides

        ConfigStore.instance().store(name="schema", node=Config)
        GlobalHydra.instance().clear()
        initialize_config_dir(str(CONFIGS), version_base="1.3")
        self.given = Overrides(overrides)
        self._options: dict[str, list[str]] = {}

    def options(self, group: str) -> list[str]:
        """Names in a group, with those of hydra.searchpath."""
        if group not in self._options:
            from hydra.core.global_hydra import GlobalHydra
            from hydra.core.object_type import ObjectType

            loader = GlobalHydra.instance().config_loader()
            names = loader.get_group_options(group, ObjectType.CONFIG, "config", self.given.hydra)
            self._options[group] = sorted(set(names))
        return self._options[group]

    def read(self, group: str, name: str) -> dict[str, Any]:
        """One file of a group as plain values, interpolations left as they stand."""
        from omegaconf import OmegaConf

        path = self._file(group, name)
        if path is None:
            raise BadInput(f"{group}={name} has no file of its own.")
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        return {str(k): v for k, v in plain.items()} if isinstance(plain, dict) else {}

    def alone(self, group: str, name: str) -> Any:
        """One option of a group as its file has it; None where Hydra makes it of several files."""
        from omegaconf import DictConfig, OmegaConf

        path = self._file(group, name)
        if path is None or "@package" in path.read_text(encoding="utf-8"):
            return None
        try:
            found = OmegaConf.load(path)
        except Exception:  # Hydra reads it too, and says what is wrong
            return None
        return found if isinstance(found, DictConfig) and "defaults" not in found else None

    def _file(self, group: str, name: str) -> Path | None:
        from hydra.core.global_hydra import GlobalHydra

        loader = GlobalHydra.instance().config_loader()
        found = loader.get_search_path().get_path()
        folders = [str(element.path).removeprefix("file://") for element in found]
        paths = (Path(f, group, f"{name}.yaml") for f in [*folders, *self.given.searchpath])
        return next((path for path in paths if path.is_file()), None)

    def compose(self, overrides: Sequence[str]) -> Any:
        """The configuration of one cell; Hydra's errors become one sentence."""
        from hydra import compose

        try:
            return compose("config", overrides=[*self.given.hydra, *overrides])
        except Exception as error:  # errors of Hydra, OmegaConf and YAML share no base
            raise self._sentence(error, overrides) from error

    def first_point(self) -> list[str]:
        """Overrides of the first cell of the axes, for --cfg."""
        self._any_cell()
        first = [f"{key}={values[0]}" for key, values in self.given.axes.items()]
        self._check_whole()
        inside = [points[0] for points in self.given.inside]
        whole = [f"suite={self.given.suite}", f"match={self.given.match}"]
        return [*first, *whole, *self.given.runner, *inside]

    def _any_cell(self) -> list[str]:
        """Overrides that compose whatever the defaults are, checked to be known."""
        from bench.objectives import NONE

        for group in ("model", "objective", "task", "scenario", "size", "device"):
            for name in self.given.axes.get(group, []):
                if name not in self.options(group) and (group, name) != ("objective", NONE):
                    raise unknown(group, name, self.options(group))
        axes = self.given.axes
        first = {group: axes.get(group, self.options(group))[:1] for group in ("model", "task")}
        return [f"{group}={name}" for group, names in first.items() for name in names]

    def _check_whole(self) -> None:
        """The names of the groups of which every cell has the same one."""
        for group, name in (("suite", self.given.suite), ("match", self.given.match)):
            if name not in self.options(group):
                raise unknown(group, name, self.options(group))

    def run(self, worker: str) -> int:
        """Plan and run everything that was asked for."""
        from bench.budgets import parse_duration
        from bench.checks import check_runner
        from bench.machine.device import resolve_device
        from bench.machine.processor import cores
        from bench.plan import expand
        from bench.request import Request
        from bench.run import Settings, execute

        self._check_whole()
        given = self.given
        shared = given.shared()
        base = self.compose([*self._any_cell(), f"suite={given.suite}", *shared, *given.runner])
        check_runner(base)
        devices = given.axes.get("device", ["auto"])
        request = Request(
            axes=given.axes,
            variants=given.variants(),
            suite=given.suite,
            shared=[*shared, *given.runner],
            devices=list(dict.fromkeys(resolve_device(name) for name in devices)),
            cores=cores(),
            allow_targets=list(base.allow_targets),
        )
        cells = expand(request, self, base)
        settings = Settings(
            results=Path(base.results),
            output=base.output,
            force=base.force,
            plan=base.plan,
            budget=parse_duration("budget", base.budget),
            timeout=base.timeout,
            memory_limit_gib=base.memory_limit_gib,
            isolation=base.isolation,
            repeats=base.repeats,
            busy_gpu=base.busy_gpu,
            energy=base.energy,
            allow_targets=list(base.allow_targets),
        )
        return execute(cells, settings, worker)

    def _sentence(self, error: Exception, overrides: Sequence[str]) -> BadInput:
        """One sentence for an error of Hydra or OmegaConf."""
        cause = error.__cause__ or error
        names = ", ".join(o for o in overrides if o.partition("=")[0] in ("model", "task"))
        if match := re.search(r"Could not override '([^']+)'", str(error)):
            key = match[1]
            allowed = self._keys_beside(key, overrides)
            *path, last = key.split(".")
            listed = f"; allowed in {'.'.join(path)}: {', '.join(allowed)}" if allowed else ""
            owner = f" ({names})" if names else ""
            meant = hint(last, allowed)
            if ".".join(path) in BY_TASK and not meant:
                meant = f" A further task is given as +{key}=VALUE."
            return BadInput(f"{key} is no key{owner}{listed}.{meant}")
        if match := re.search(r"[Ee]rror merging override '?(.+)", str(error)):
            reason = str(cause).splitlines()[0]
            return BadInput(f"{match[1].rstrip(chr(39))} is of the wrong type: {reason}.")
        return BadInput(one_line(f"{error}" if cause is error else f"{error}: {cause}"))

    def _keys_beside(self, key: str, overrides: Sequence[str]) -> list[str]:
        from omegaconf import DictConfig, OmegaConf

        groups = [o for o in overrides if o.partition("=")[0] in ("model", "task", "scenario")]
        config = self.compose(groups)
        parent = OmegaConf.select(config, key.rpartition(".")[0], throw_on_missing=False)
        return sorted(map(str, parent)) if isinstance(parent, DictConfig) else []


if __name__ == "__main__":
    sys.exit(main())
