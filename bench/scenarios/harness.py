"""Scores of lm-evaluation-harness: its own library, its own tasks, our states and caches.

https://github.com/EleutherAI/lm-evaluation-harness. A language model reads each context once, also
where several continuations follow it, and goes on from a copy of its state. Every text begins with
the model's start symbol, which is the checkpoint's own where it was read from one.
"""

import copy
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import BadInput, describe, hint
from bench.protocol import Recurrent
from bench.scenarios.base import Context, Unsupported
from bench.scenarios.writing import STATELESS
from bench.tasks.tokenizer import Bytes, Tokenizer

INSTALL = "pip install lm-eval"


def run(context: Context) -> dict[str, Any]:
    model = context.inference_model()
    if not isinstance(model, Recurrent) or not hasattr(model, "log_prob"):
        raise Unsupported(STATELESS)
    if not context.config["model"].get("pretrained"):
        raise Unsupported(
            "weights that were drawn at random have no score worth the name; give "
            "model.pretrained=FOLDER, as `python -m bench.save` writes one"
        )
    scenario = context.scenario
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise BadInput(f"scenario=harness needs lm-evaluation-harness: {INSTALL}") from error
    tasks = [str(name) for name in scenario["tasks"]]
    include = scenario["include"]
    if include is not None and not Path(include).expanduser().is_dir():
        raise BadInput(f"scenario.include={include} is no folder; give one with tasks in YAML")
    manager = TaskManager(
        include_path=None if include is None else str(Path(include).expanduser()),
        include_defaults=bool(scenario["own_tasks"]),
    )
    known = list(manager.all_tasks)
    for name in tasks:
        if name in known:
            continue
        if include and (file := next(Path(include).expanduser().rglob(f"{name}.yaml"), None)):
            raise BadInput(f"scenario.tasks: {file} is no task that lm-evaluation-harness can read")
        raise BadInput(
            f"scenario.tasks: {name} is no task of lm-evaluation-harness {lm_eval.__version__} or "
            f"of scenario.include={include}.{hint(name, known)}"
        )
    tokenizer = getattr(context.task, "tokenizer", None) or Bytes()
    ours = language_model(model, tokenizer, context.device)
    try:
        found = lm_eval.simple_evaluate(
            model=ours,
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=None if scenario["fewshot"] is None else int(scenario["fewshot"]),
            limit=scenario["limit"],
            bootstrap_iters=int(scenario["bootstrap"]),
            log_samples=False,
        )
    except Exception as error:  # a task is data and code of others, which fail in their own ways
        if ours.asked:
            raise
        raise BadInput(f"scenario.tasks={tasks} cannot be run: {describe(error)}") from error
    assert found is not None
    return {
        "harness": {"version": lm_eval.__version__, "scores": list(_scores(found))},
        "figures": {},
        "validity": {"valid": True, "reason": None},
    }


def _scores(found: Any) -> Iterator[dict[str, Any]]:
    """One row a task and metric: value, its standard error where there is one, items, shots."""
    for name, values in found["results"].items():
        counts = (found.get("n-samples") or {}).get(name) or {}
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{filtered}")
            better = (found.get("higher_is_better") or {}).get(name, {}).get(metric)
            yield {
                "task": name,
                "metric": metric,
                "filter": filtered,
                "value": float(value),
                "stderr": float(error) if isinstance(error, int | float) else None,
                "better": {True: "higher", False: "lower"}.get(better),
                "items": counts.get("effective"),
                "shots": (found.get("n-shot") or {}).get(name),
                "version": (found.get("versions") or {}).get(name),
            }


def language_model(model: Any, tokenizer: Tokenizer, device: torch.device) -> Any:
    """`model` as the harness wants one; the library is imported here alone."""
    from lm_eval.api.model import LM

    def asking(method: Callable[..., Any]) -> Callable[..., Any]:
        """The method without gradients; `asked` until it has answered, so also where it raises."""

        @functools.wraps(method)
        @torch.no_grad()
        def asked(self: Any, requests: Sequence[Any], **_: Any) -> Any:
            self.asked = True
            answers = method(self, requests)
            self.asked = False
            return answers

        return asked

    class Ours(LM):
        """Log-likelihoods and greedy continuations from our states."""

        asked = False  # whether an error is the model's and not the task's

        @asking
        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            """Of each continuation given its context: log p, and whether greedy writes it."""
            pairs = [_pair(tokenizer, *request.args) for request in requests]
            order = sorted(range(len(pairs)), key=lambda n: pairs[n][0])
            answers: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
            read: tuple[list[int] | None, Tensor, Any] = (None, torch.empty(0), None)
            for number in order:
                before, after = pairs[number]
                if before != read[0]:
                    read = (before, *_read(model, before, device))
                answers[number] = _judge(model, read[1], read[2], before, after, device)
            return answers

        @asking
        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            """log p of whole texts, from the start symbol on."""
            found = []
            for request in requests:
                tokens = torch.tensor([tokenizer.encode(request.args[0])], device=device)
                nats = model.log_prob(tokens).nats if tokens.numel() else tokens.new_zeros(1)
                found.append(float(_finite(nats)))
            return found

        @asking
        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            """Greedy text after each context, up to a stop word or `max_gen_toks` symbols."""
            return [_write(model, tokenizer, device, *request.args) for request in requests]

    return Ours()


def _pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Symbols of both; blanks between them go to the continuation, as in the harness."""
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, continuation = context[:-blanks], context[-blanks:] + continuation
    before = tokenizer.encode(context)
    return before, tokenizer.encode(context + continuation)[len(before) :]


def _read(model: Any, symbols: list[int], device: torch.device) -> tuple[Tensor, Any]:
    """Logits of what follows (V,), and the state; of an empty text there is none yet."""
    if not symbols:
        return torch.empty(0), None
    logits, state = model.prefill(torch.tensor([symbols], device=device))
    return logits[0, -1], state


def _judge(
    model: Any, first: Tensor, state: Any, before: list[int], after: list[int], device: torch.device
) -> tuple[float, bool]:
    """log p(after | before) and whether each of its symbols is the likeliest."""
    if not after:
        return 0.0, True
    tokens = torch.tensor([after], device=device)
    if not before:  # from the start symbol
        logits = model(tokens=tokens).logits[0]  # (T, V)
    elif len(after) == 1:
        logits = first[None]
    else:
        # A copy: a state is consumed, and other continuations follow the same context.
        rest, _ = model.prefill(tokens[:, :-1], copy.deepcopy(state))
        logits = torch.cat([first[None], rest[0]])  # (T, V)
    log_p = _finite(logits).float().log_softmax(-1).gather(-1, tokens[0, :, None])
    return float(log_p.sum()), bool((logits.argmax(-1) == tokens[0]).all())


def _finite(numbers: Tensor) -> Tensor:
    """The numbers; FloatingPointError for a NaN or +inf, of which any comparison makes a score."""
    if (numbers.isnan() | numbers.isposinf()).any():
        raise FloatingPointError("the model's logits are not finite numbers")
    return numbers


def _write(
    model: Any, tokenizer: Tokenizer, device: torch.device, context: str, options: dict[str, Any]
) -> str:
    if options.get("do_sample") and float(options.get("temperature") or 0) > 0:
        print("harness: sampling was asked for; the likeliest symbols are written", file=sys.stderr)
    until = options.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    if "" in stops:
        raise BadInput(f"a task has until={stops}; needed are texts that are not empty")
    symbols = tokenizer.encode(context)
    if not symbols:
        raise BadInput("a task asks for a continuation of an empty text; needed is one symbol")
    last, state = _read(model, symbols, device)
    written: list[int] = []
    for _ in range(int(options.get("max_gen_toks") or 256)):
        written.append(int(_finite(last).argmax()))
        text = tokenizer.decode(written)
        if any(stop in text for stop in stops):
            break
        logits, state = model.step(torch.tensor(written[-1:], device=device), state)
        last = logits[0]
    text = tokenizer.decode(written)
    for stop in stops:
        text = text.split(stop)[0]
    return text
