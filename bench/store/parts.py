"""What the sections of a record hold, with shapes, units and meaning where a name does not say."""

from typing import Any, TypedDict


class CellPart(TypedDict, total=False):
    """What was run."""

    suite: str
    family: str
    model: str
    objective: str  # where it is not the family's own
    match: str  # what was matched, where it is not the size's parameters
    size: str
    task: str
    kind: str
    scenario: str
    seed: int
    device: str
    dtype: str
    threads: int
    compile: bool | str
    backend: str
    kernel: str
    fallback: str  # what would have been faster, and why it did not run
    overrides: list[str]  # keys given inside groups that are not the defaults


class VersionsPart(TypedDict, total=False):
    """Versions of the definitions: another version is not comparable."""

    suite: int
    task: int


class DataPart(TypedDict, total=False):
    """Which data: `id` names the corpus with its version, `sha256` its content."""

    id: str
    sha256: str
    sizes: dict[str, float]
    notes: dict[str, Any]


class CodePart(TypedDict, total=False):
    """Which source; `source_sha256` covers uncommitted changes."""

    version: str
    commit: str
    dirty: bool
    source_sha256: str


class BusyPart(TypedDict, total=False):
    """Another process and its share of a core; on a GPU its pid and memory instead."""

    name: str
    cores: float
    pid: int
    mib: int


class EnvironmentPart(TypedDict, total=False):
    """Where it ran, and what went on there meanwhile; null: it could not be read."""

    machine_key: str
    cpu: str
    cores: int
    memory_gib: float
    gpu: str
    driver: str
    python: str
    platform: str
    packages: dict[str, str]
    threads: int
    kernel: str
    libc: str
    virtual: str  # maker of the virtual machine, or "yes" or "no"
    container: str
    cpu_quota: float  # processors' worth of time that the control group allows; null: no limit
    memory_limit_gib: float  # of the control group; null: no limit
    governor: str
    turbo: bool
    smt: bool
    frequency_max_mhz: float
    frequency_mhz: float  # right after the work, mean over the processors
    hugepages: str
    clocksource: str
    variables: dict[str, str]  # of the user's environment, those that can change a figure
    allocator: dict[str, str]
    spin: dict[str, str]  # how long OpenMP's threads wait for more work without sleeping
    torch: dict[str, Any]  # how torch was built and how it runs in the cell's process
    isolation: str  # "fork server" or "fresh interpreter"
    layout: str  # equal for processes that share a memory layout: one sample for a verdict
    server_s: float  # until the fork server had imported everything
    start_s: float  # from the runner's request for a process to the worker's first line
    parent_cpu_s: float  # processor time of the runner while the cell ran: it sleeps
    busy_before: list[BusyPart]  # other processes just before the cell
    busy: list[BusyPart]  # and during it
    gpu_processes: list[BusyPart]  # others that computed on the GPU just before the cell
    load_before: float
    load_after: float
    steal_before: float  # share of processor time that a hypervisor took, over a short window
    steal: float  # the same over the cell
    throttled: str  # what slowed the machine while it measured; null: nothing was seen


class ValidityPart(TypedDict, total=False):
    """Whether the measurement reached its own stop rule."""

    valid: bool
    reason: str


class CheckpointPart(TypedDict, total=False):
    """What a model was read from: `name` as given, and a hash over the contents of its files."""

    name: str
    sha256: str


class AgreementPart(TypedDict, total=False):
    """Of another backend: the largest difference of `compared` logits from those of our form."""

    difference: float
    allowed: float
    compared: int


class ParametersPart(TypedDict, total=False):
    """Parameter counts; `matched` is compared between families, `target` is what the size asks."""

    total: int
    active: int
    matched: int
    target: int


class TimingPart(TypedDict, total=False):
    """Raw samples of one call, in seconds."""

    cold_s: float
    warmup: int
    samples_s: list[float]
    n: int
    median_s: float
    ci_low_s: float
    ci_high_s: float
    items_per_call: float
    unit: str
    clock: str  # what took the samples


class LatencyPart(TypedDict, total=False):
    """Time to the first token from an empty state, and of the calls after it, in seconds.

    A percentile that the samples cannot determine is null.
    """

    prompt: int
    ttft_s: float
    ttft_ci_low_s: float
    ttft_ci_high_s: float
    ttft_samples_s: list[float]
    p50_s: float
    p95_s: float
    p99_s: float


class MemoryPart(TypedDict, total=False):
    """Bytes by phase; `method` says how the peak was taken.

    `activations_bytes` is what forward keeps for backward. `predicted` has what formulas state,
    by the same names. The RSS is the whole process's: its peak in the measured phase, and what it
    was when the cell began.
    """

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    state_bytes: int
    peak_bytes: int | None
    reserved_bytes: int
    rss_start_bytes: int
    rss_peak_bytes: int
    method: str
    predicted: dict[str, int]


class CostPart(TypedDict, total=False):
    """Arithmetic and traffic of one timed call.

    `flops` is the figure to use (null: `reason` says why); `counted` is what the operators' own
    formulas give, `formula` what the model states; `bytes_moved` what all operators read and wrote.
    """

    flops: int
    method: str
    counted: int
    formula: int
    uncounted: list[str]
    bytes_moved: int
    reason: str


class EnergyPart(TypedDict, total=False):
    """Joules of a window of repeated calls, by what used them (`cpu 0`, `dram 0`, `gpu 0`).

    `reason` says why there are none, or what is not among them. The window holds what prepares the
    calls, too; `calls` times the median time of a call is less by that.
    """

    joules: float
    joules_per_item: float
    window_s: float
    calls: int
    domains: dict[str, float]
    source: str
    reason: str


class PointPart(TypedDict, total=False):
    """One value of a sweep's axis: what was measured there, or why nothing was."""

    at: int
    status: str  # ok, failed or skipped
    reason: str
    prefill_s: float
    prefill_ci_low_s: float
    prefill_ci_high_s: float
    prefill_n: int
    step_s: float
    step_ci_low_s: float
    step_ci_high_s: float
    step_n: int
    valid: bool
    state_bytes: int  # held by the tensors of the state
    stated_bytes: int  # what the model's formula says
    start_bytes: int  # held by the process before the point's own call
    peak_bytes: int | None
    limit_bytes: int  # of memory, as it was in force
    wall_s: float  # of the point's process


class SweepPart(TypedDict, total=False):
    """Measurements along one axis (`context` or `batch`) of a single model."""

    axis: str
    mode: str  # what had to fit: train, prefill or decode
    batch: int
    context: int
    memory_limit_gib: float
    largest: int  # the last value that fitted
    smallest_failed: int
    limited_by: str  # memory, point_seconds, max_seconds or max
    method: str  # how the peaks were taken
    points: list[PointPart]


class ChecksPart(TypedDict, total=False):
    """Scores on validation on the way: items read, seconds of training alone, the score."""

    items: list[int]
    seconds: list[float]
    value: list[float]


class CurvePart(TypedDict, total=False):
    """A learning curve: training items, seconds and mean loss since the point before.

    `flops_per_item` is that of a whole training step, the optimizer's share too; null: not known.
    """

    items: list[int]
    seconds: list[float]
    loss: list[float]
    validation: ChecksPart
    tokens_per_item: int
    flops_per_item: float


class GroupPart(TypedDict, total=False):
    """A group of parameters: whose it is, its size, and the values that it alone has."""

    optimizer: str
    tensors: int
    parameters: int
    lr: float  # before the rate falls
    weight_decay: float


class OptimizerPart(TypedDict, total=False):
    """What trained the model; `cooldown` is the share of `steps` over which the rates fall."""

    groups: list[GroupPart]
    schedule: str
    cooldown: float
    steps: int
    clip: float


class QualityPart(TypedDict, total=False):
    """A score on the test part; `validation_value` is that of the same model on validation.

    `target` is the score on validation that the task asks for, where it names one.
    """

    metric: str
    value: float
    validation_value: float
    target: float
    better: str
    bound: bool
    stderr: float
    n_items: int
    secondary: dict[str, Any]
    notes: dict[str, Any]
    train_items: int
    train_seconds: float
    train_tokens: int
    lr: float
    tuned: bool
    optimizer: OptimizerPart
    items_artefact: str


class ScorePart(TypedDict, total=False):
    """A metric of a task of lm-evaluation-harness, after the harness's own filter."""

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    better: str | None
    items: int | None
    shots: int | None
    version: float | str | None


class HarnessPart(TypedDict, total=False):
    """Scores of lm-evaluation-harness in its `version`."""

    version: str
    scores: list[ScorePart]


class TrialPart(TypedDict, total=False):
    """One trial of a search: its score on validation, or None and the reason."""

    lr: float
    weight_decay: float
    value: float | None
    stderr: float | None
    reason: str


class TuningPart(TypedDict, total=False):
    """What a search for a rate tried."""

    trials: list[TrialPart]
    better: str


class BaselinePart(QualityPart, total=False):
    """A plain baseline: its score stands here or under `quality`."""

    name: str
    description: str
    seconds: float
    quality: QualityPart


class ArtefactPart(TypedDict, total=False):
    """A file in the record's folder."""

    name: str
    bytes: int
    sha256: str
