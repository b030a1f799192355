"""Options of backbones that no format holds and few libraries compute."""

from torch import nn

PUBLISHED = {"selective": True, "negative_eigenvalues": False}


def departure(model: nn.Module) -> str | None:
    """The first option by which a model departs from the published one, as KEY=value, or None."""
    for module in model.modules():
        for name, value in PUBLISHED.items():
            if getattr(module, name, value) != value:
                return f"{name}={str(not value).lower()}"
    return None


def refuse_departures(model: nn.Module, what: str) -> None:
    """`ValueError` for such a model; `what` is who has no place for it, such as "mamba_ssm"."""
    if found := departure(model):
        raise ValueError(f"{found} is unknown to {what}; our own form alone (backend=torch) has it")
