"""The values of the keys that the bench owns: one that cannot be is refused in one sentence."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from bench import budgets
from bench.backends import check_backend
from bench.budgets import parse_duration
from bench.errors import BadInput, unknown
from bench.machine.processor import cores

if TYPE_CHECKING:  # the type alone: the checks need nothing of Hydra
    from omegaconf import DictConfig

DTYPES = ("float32", "bfloat16", "float16")
# Modes of torch.compile; the first two record CUDA graphs, which replay all kernels at one launch.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
COMPILE_MODES = (*CUDA_GRAPHS, "max-autotune-no-cudagraphs")
OUTPUTS = ("table", "json")
ISOLATIONS = ("server", "fresh")
BUSY_GPU = ("record", "refuse")
AXES = ("batch", "context")
MODES = ("train", "prefill", "decode")
MOST_REPEATS = 10_000  # processes a cell
MOST_CHECKS = 1000  # scores on validation in one training
LONGEST_S = 2_000_000  # 23 days: the system waits for 2^31 milliseconds at most


def check_scalar(key: str, value: object) -> int | str | bool:
    """One value of seed, dtype, threads, compile or backend; BadInput where it is none."""
    text = str(value).strip()
    if key == "backend":
        return check_backend(text)
    if key == "dtype":
        if text not in DTYPES:
            raise unknown(key, text, DTYPES)
        return text
    if key == "compile":
        return check_compile(text)
    least, most, allowed = 0, 2**31 - 1, "integers from 0"
    if key == "threads":  # more than there are cores would only wait for each other
        least, most = 1, cores()
        allowed = f"integers from 1 to {most}, the cores that this process may use"
    if not re.fullmatch(r"[+-]?\d+", text) or isinstance(value, bool):
        raise BadInput(f"{key}={text} is no whole number; allowed: {allowed}.")
    # A number of very many digits is out of range too, and Python refuses to read it.
    if len(text) > 20 or not least <= int(text) <= most:
        raise BadInput(f"{key}={text[:40]} is out of range; allowed: {allowed}.")
    return int(text)


def check_compile(text: str) -> bool | str:
    """Whether forward is compiled, or the mode of torch.compile by which it is."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text not in COMPILE_MODES:
        raise unknown("compile", text, ("true", "false", *COMPILE_MODES))
    return text


def compile_refusal(compiled: bool | str, device: str) -> str | None:
    """Why a device cannot compile in this mode, or None."""
    if compiled not in CUDA_GRAPHS or device == "cuda":
        return None
    plain = ", ".join(["true", *(mode for mode in COMPILE_MODES if mode not in CUDA_GRAPHS)])
    return (
        f"compile={compiled} records CUDA graphs, which device={device} has not; "
        f"allowed there: {plain}"
    )


def check_runner(config: "DictConfig") -> None:
    """Values of the keys that steer the runner."""
    if config.output not in OUTPUTS:
        raise unknown("output", config.output, OUTPUTS)
    if not 0 < config.timeout <= LONGEST_S:
        raise BadInput(
            f"timeout={config.timeout} is out of range; "
            f"allowed: seconds above 0, up to {LONGEST_S}."
        )
    limit = config.memory_limit_gib
    if limit is not None and not 0 < limit < math.inf:
        raise BadInput(f"memory_limit_gib={limit} is out of range; allowed: GiB above 0, or null.")
    if config.isolation not in ISOLATIONS:
        raise unknown("isolation", config.isolation, ISOLATIONS)
    if not 0 < config.repeats <= MOST_REPEATS:
        raise BadInput(
            f"repeats={config.repeats} is out of range; allowed: integers from 1 to {MOST_REPEATS}."
        )
    if config.busy_gpu not in BUSY_GPU:
        raise unknown("busy_gpu", config.busy_gpu, BUSY_GPU)
    if not config.results.strip():
        raise BadInput("results= is empty; allowed: the path of a folder.")
    parse_duration("budget", config.budget)


def check_frontier(scenario: "DictConfig") -> None:
    """Values of a search that could not begin, not end, or find nothing."""
    for key, names in (("axis", AXES), ("mode", MODES)):
        if scenario[key] not in names:
            raise unknown(f"scenario.{key}", scenario[key], names)
    for key in ("start", "max", "batch_size", "context"):
        number = scenario[key]
        if not (type(number) is int and number >= 1) and (key, number) != ("context", None):
            raise BadInput(f"scenario.{key}={number} is no size; allowed: integers from 1.")
    least: dict[str, tuple[Any, str]] = {
        "factor": (1, "numbers above 1"),
        "point_seconds": (0, "seconds above 0"),
        "max_seconds": (0, "seconds above 0"),
        "memory_limit_gib": (0, "GiB above 0, or null"),
    }
    for key, (bound, allowed) in least.items():
        number = scenario[key]
        if number is None and key == "memory_limit_gib":
            continue
        if type(number) not in (int, float) or not bound < number < math.inf:
            raise BadInput(f"scenario.{key}={number} is out of range; allowed: {allowed}.")
    share = scenario.resolution
    if type(share) not in (int, float) or not 0 <= share < math.inf:
        raise BadInput(f"scenario.resolution={share} is out of range; allowed: numbers from 0.")
    if scenario.start > scenario.max:
        raise BadInput(
            f"scenario.start={scenario.start} lies above scenario.max={scenario.max}; "
            "allowed: scenario.start up to scenario.max."
        )


def check_context(scenario: "DictConfig") -> None:
    """Lengths that cannot be read."""
    lengths = scenario.lengths
    allowed = "allowed: a list of whole numbers from 1, such as [128,256]."
    if not isinstance(lengths, Sequence) or isinstance(lengths, str) or not lengths:
        raise BadInput(f"scenario.lengths={lengths} names no length; {allowed}")
    for length in lengths:
        if not _whole(length, 1):
            raise BadInput(f"scenario.lengths: {length} is no length; {allowed}")


def check_tune(scenario: "DictConfig") -> None:
    """A search of no trials, or of numbers that cannot be."""
    for key, least in (("grid", "above 0"), ("weight_decay", "from 0, or null: the cell's own")):
        values = scenario[key]
        allowed = f"allowed: a list of numbers {least}"
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise BadInput(f"scenario.{key}={values} is a search of no trials; {allowed}.")
        for value in values:
            if value is None and key == "weight_decay":
                continue
            number = type(value) in (int, float) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and key == "grid"):
                raise BadInput(f"scenario.{key}: {value} cannot be; {allowed}.")


def check_harness(scenario: "DictConfig") -> None:
    """Names and numbers of which lm-evaluation-harness would make no sense."""
    tasks, limit = scenario.tasks, scenario.limit
    named = isinstance(tasks, Sequence) and not isinstance(tasks, str)
    if not named or not tasks or not all(isinstance(name, str) for name in tasks):
        raise BadInput(f"scenario.tasks={tasks} is no list of tasks; give some, as [arc_easy].")
    share = type(limit) is float and 0 < limit < 1
    if limit is not None and not share and not _whole(limit, 1):
        raise BadInput(
            f"scenario.limit={limit} is no number of items; allowed: whole numbers from 1, a share "
            "between 0 and 1, or null."
        )
    if scenario.fewshot is not None and not _whole(scenario.fewshot, 0):
        raise BadInput(
            f"scenario.fewshot={scenario.fewshot} is no number of examples; allowed: whole numbers "
            "from 0, or null."
        )
    if not _whole(scenario.bootstrap, 0):
        raise BadInput(
            f"scenario.bootstrap={scenario.bootstrap} is no number of resamples; allowed: whole "
            "numbers from 0."
        )


def check_quality(scenario: "DictConfig") -> None:
    """How often validation is scored on the way."""
    if not _whole(scenario.checks, 0) or scenario.checks > MOST_CHECKS:
        raise BadInput(
            f"scenario.checks={scenario.checks} is no number of checks; allowed: whole numbers "
            f"from 0 to {MOST_CHECKS}."
        )


def check_target(task: "DictConfig") -> None:
    """The score that the time to is stated."""
    target = task.get("target")
    number = type(target) in (int, float) and math.isfinite(target)
    if target is not None and not number:
        raise BadInput(f"task.target={target} is no score; allowed: a finite number, or null.")


def _whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, as 4 or 4.0 and not true, of `least` or more."""
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return whole and cast(float, value) >= least


def check_match(config: "DictConfig") -> None:
    """What cannot be matched, or not within the time that a cell may take."""
    budgets.check(config.match)
    match, scenario = budgets.plain(config.match), config.scenario
    if match["name"] != budgets.TIME or scenario.name not in ("quality", "tune"):
        return
    trials = len(scenario.grid) * len(scenario.weight_decay) if scenario.name == "tune" else 1
    if match["target"] * trials >= config.timeout:
        raise BadInput(
            f"match.target={config.match.target}, {trials} time{'s' * (trials > 1)} a cell, does "
            f"not fit into timeout={config.timeout:g}; allowed: a larger timeout=SECONDS."
        )


def check_numbers(config: "DictConfig") -> None:
    """Numbers that would make a run empty or impossible."""
    checks = {
        "frontier": check_frontier, "context": check_context, "harness": check_harness,
        "quality": check_quality, "tune": check_tune,
    }  # fmt: skip
    check_target(config.task)
    if (check := checks.get(config.scenario.name)) is not None:
        check(config.scenario)
    if not _whole(config.task.get("batch_size", 1), 1):
        raise BadInput(
            f"task.batch_size={config.task.batch_size} is no size; allowed: whole numbers from 1."
        )
    check_match(config)
    suite = config.suite
    positive: dict[str, Any] = {f"suite.items.{name}": n for name, n in suite["items"].items()}
    positive |= {f"suite.{key}": suite[key] for key in ("validation_items", "test_items")}
    positive |= {f"suite.measure.{k}": suite.measure[k] for k in ("min_samples", "max_seconds")}
    positive["size.parameters"] = config.size.parameters
    positive["lr"] = config.lr
    positive |= {f"optimizer.{key}": config.optimizer[key] for key in ("lr", "clip")}
    for key, number in positive.items():
        if number is not None and not number > 0:
            raise BadInput(f"{key}={number} is too small; allowed: numbers above 0.")
    decays = {f"suite.weight_decay.{name}": n for name, n in suite.weight_decay.items()}
    names = ("adam_ratio", "weight_decay", "cooldown")
    from_zero = {**decays, **{f"optimizer.{key}": config.optimizer[key] for key in names}}
    for key, number in from_zero.items():
        if number is None or not 0 <= number < math.inf:
            raise BadInput(f"{key}={number} cannot be; allowed: finite numbers from 0.")
    rates = {f"optimizer.{key}": number for key, number in config.optimizer.items()}
    for key, number in {"lr": config.lr, **rates}.items():
        if number is not None and not math.isfinite(number):
            raise BadInput(f"{key}={number} is not finite; allowed: numbers above 0.")
