"""The command line: the Hydra application, and the words that need none of it.

Everything that knows Hydra's grammar or its errors stands here; the worker alone instantiates.
"""

import itertools
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import BadInput, describe, hint, one_line, unknown

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WORKER = "bench.worker:run_cell"
WORDS = ("list", "doctor", "table")
# What a YAML file says of itself: set by hand, a record would claim to be another cell's.
FIXED = (
    *(f"{group}.name" for group in ("model", "task", "scenario", "size", "suite", "device")),
    *("model.family", "model.kinds", "model.shapes", "task.kind"),
)
USAGE = """\
usage: python -m bench [WORD | KEY=VALUE ...] [-m] [--cfg] [--debug] [--help]

  python -m bench                                every family on every task (suite quick)
  python -m bench model=mamba                    one family
  python -m bench model=mamba,rwkv size=nano,tiny    a sweep (-m is accepted, not needed)
  python -m bench list | doctor                  what there is | which backends work here
  python -m bench table [results/...]            the table again, from the records

groups    model task scenario size suite device         see `python -m bench list`
axes      seed dtype threads compile                     groups and axes take lists: seed=0,1,2
run       results=FOLDER output=table|json force=true plan=true budget=30min timeout=SECONDS
          memory_limit_gib=N allow_targets=[PACKAGE] 'hydra.searchpath=[FOLDER]'
inside    model.backbone.d_model=64  task.path=FILE  suite.items.text=512  lr=0.01  optimizer.clip=1

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
        return _dispatch([a for a in arguments if a != "--debug"], worker)
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
    except Exception as error:  # a defect of ours: one line all the same, and never success
        if debug:
            traceback.print_exc()
        print(f"error: unexpected {describe(error)} (--debug shows where)", file=sys.stderr)
        return 1


def _dispatch(arguments: list[str], worker: str) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(USAGE, end="")
        return 0
    from bench.precheck import warn_of_shadows

    warn_of_shadows(refuse=not arguments or arguments[0] not in WORDS)
    if arguments and arguments[0] == "table":
        from bench.report.__main__ import main as report

        return report(arguments)
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
    """The overrides of one command line, and Hydra to compose them with."""

    def __init__(self, overrides: Sequence[str]) -> None:
        from hydra import initialize_config_dir
        from hydra.core.config_store import ConfigStore
        from hydra.core.global_hydra import GlobalHydra

        from bench.config import Config

        ConfigStore.instance().store(name="schema", node=Config)
        GlobalHydra.instance().clear()
        initialize_config_dir(str(CONFIGS), version_base="1.3")
        self.axes: dict[str, list[Any]] = {}
        self.suite = "quick"
        self.given: set[str] = set()
        self.runner: list[str] = []
        self.inside: list[list[str]] = []  # each an override's points
        self.hydra: list[str] = []
        self.searchpath: list[str] = []
        for text in overrides:
            self._take(text)
        self._options: dict[str, list[str]] = {}

    def _take(self, text: str) -> None:
        """Sort one override into axes, runner keys and keys inside a group."""
        from bench.config import AXES, GROUPS, RUNNER_KEYS, check_scalar

        text = _quoted(text)
        override = _parse(text)
        key, values = override.key_or_group, _values(override)
        if key in self.given and key != "hydra.searchpath":
            lists = key in (*AXES, "lr") or key.startswith(("model.", "task."))
            more = ", values separated by commas" if lists else ""
            raise BadInput(f"{key} is given twice, '{text}' the second time; give it once{more}.")
        self.given.add(key)
        if override.is_hydra_override():
            if key != "hydra.searchpath":
                raise BadInput(f"{key} cannot be set; of Hydra's own keys only hydra.searchpath.")
            self.searchpath += _folders(override.value())
            self.hydra.append(text)
        elif key in AXES or key == "suite":
            if override.package or override.is_add() or override.is_delete() or not values:
                raise BadInput(f"'{text}' cannot be; give {key}=VALUE or {key}=VALUE,VALUE.")
            if key == "suite":
                if len(values) != 1:
                    raise BadInput(f"suite={','.join(values)} is no single suite; give one name.")
                self.suite = values[0]
            else:
                scalar = key not in GROUPS
                self.axes[key] = [check_scalar(key, v) if scalar else v for v in values]
        elif key in FIXED:
            raise BadInput(f"{key} is what a file of {CONFIGS.name}/ is, and cannot be set.")
        elif key in RUNNER_KEYS:
            if override.is_sweep_override():
                raise BadInput(f"'{text}': {key} takes one value; axes are {', '.join(AXES)}.")
            self.runner.append(text)
        elif key == "lr" or (key.partition(".")[0] in (*GROUPS, "optimizer") and "." in key):
            prefix = text.partition("=")[0]
            points = [f"{prefix}={value}" for value in values]
            self.inside.append(points if override.is_sweep_override() else [text])
        else:
            known = [*AXES, "suite", "lr", *RUNNER_KEYS]
            raise BadInput(
                f"'{key}' is no key; allowed: {', '.join(known)}, and keys inside "
                f"{', '.join(GROUPS)} such as model.backbone.d_model.{hint(key, known)}"
            )

    def options(self, group: str) -> list[str]:
        """Names in a group, with those of hydra.searchpath."""
        if group not in self._options:
            from hydra.core.global_hydra import GlobalHydra
            from hydra.core.object_type import ObjectType

            loader = GlobalHydra.instance().config_loader()
            names = loader.get_group_options(group, ObjectType.CONFIG, "config", self.hydra)
            self._options[group] = sorted(set(names))
        return self._options[group]

    def read(self, group: str, name: str) -> dict[str, Any]:
        """One file of a group as plain values, interpolations left as they stand."""
        from hydra.core.global_hydra import GlobalHydra
        from omegaconf import OmegaConf

        loader = GlobalHydra.instance().config_loader()
        found = loader.get_search_path().get_path()
        folders = [str(element.path).removeprefix("file://") for element in found]
        folders += self.searchpath
        for folder in folders:
            path = Path(folder, group, f"{name}.yaml")
            if path.is_file():
                plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
                return {str(k): v for k, v in plain.items()} if isinstance(plain, dict) else {}
        raise BadInput(f"{group}={name} has no file of its own.")

    def compose(self, overrides: Sequence[str]) -> Any:
        """The configuration of one cell; Hydra's errors become one sentence."""
        from hydra import compose

        try:
            return compose("config", overrides=[*self.hydra, *overrides])
        except Exception as error:  # errors of Hydra, OmegaConf and YAML share no base
            raise self._sentence(error, overrides) from error

    def first_point(self) -> list[str]:
        """Overrides of the first cell of the axes, for --cfg."""
        self._any_cell()
        first = [f"{key}={values[0]}" for key, values in self.axes.items()]
        self._check_suite_name()
        return [*first, f"suite={self.suite}", *self.runner, *(points[0] for points in self.inside)]

    def _any_cell(self) -> list[str]:
        """Overrides that compose whatever the defaults are, checked to be known."""
        for group in ("model", "task", "scenario", "size", "device"):
            for name in self.axes.get(group, []):
                if name not in self.options(group):
                    raise unknown(group, name, self.options(group))
        first = {
            group: self.axes.get(group, self.options(group))[:1] for group in ("model", "task")
        }
        return [f"{group}={name}" for group, names in first.items() for name in names]

    def _check_suite_name(self) -> None:
        if self.suite not in self.options("suite"):
            raise unknown("suite", self.suite, self.options("suite"))

    def run(self, worker: str) -> int:
        """Plan and run everything that was asked for."""
        from bench.config import check_runner, parse_duration
        from bench.environment import cores, resolve_device
        from bench.plan import Request, expand
        from bench.run import Settings, execute

        self._check_suite_name()
        shared = [points for points in self.inside if not _inner(points[0])]
        variants = [points for points in self.inside if _inner(points[0])]
        if any(len(points) > 1 for points in shared):
            raise BadInput("keys inside suite and device take one value; sweep others.")
        flat = [points[0] for points in shared]
        base = self.compose([*self._any_cell(), f"suite={self.suite}", *flat, *self.runner])
        check_runner(base)
        devices = self.axes.get("device", ["auto"])
        request = Request(
            axes=self.axes,
            variants=[list(point) for point in itertools.product(*variants)],
            suite=self.suite,
            shared=flat,
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
            return BadInput(f"{key} is no key{owner}{listed}.{hint(last, allowed)}")
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


def _folders(value: Any) -> list[str]:
    """The folders of hydra.searchpath, each checked."""
    folders = [str(item) for item in (value if isinstance(value, list) else [value])]
    for folder in folders:
        path = folder.removeprefix("file://")
        if not path.startswith("pkg://") and not Path(path).is_dir():
            raise BadInput(f"hydra.searchpath={folder} is no folder; give a folder of YAML.")
    return [folder.removeprefix("file://") for folder in folders]


def _inner(override: str) -> bool:
    """Whether an override belongs to single cells rather than to the whole suite."""
    key = override.lstrip("+~").partition("=")[0]
    return key == "lr" or key.partition(".")[0] in (
        "model",
        "task",
        "scenario",
        "size",
        "optimizer",
    )


def _parse(text: str) -> Any:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
    except HydraException as error:
        raise BadInput(f"'{text}' cannot be read; give key=value, quoted where needed.") from error


def _quoted(text: str) -> str:
    """The override with its value in quotes where Hydra's grammar cannot read it bare.

    Its words are ASCII alone and have no parentheses, as folders of people do.
    """
    key, equals, value = text.partition("=")
    plain = equals and not set(value) & set("[]{}'\"\\,$") and re.fullmatch(r"[+\w./@]+", key)
    if not plain or not re.search(r"[^ -~]|[()]", value) or "range(" in value:
        return text
    return f"{key}='{value}'"


def _values(override: Any) -> list[str]:
    """The values of an override as strings, one unless it sweeps."""
    from hydra.errors import HydraException

    if override.is_sweep_override():
        try:
            return list(override.sweep_string_iterator())
        except HydraException as error:
            raise BadInput(f"'{override.input_line}' cannot be listed; use commas.") from error
    value = override.value()
    values = value if isinstance(value, list) else [value]
    return ["null" if item is None else str(item) for item in values]


if __name__ == "__main__":
    sys.exit(main())
