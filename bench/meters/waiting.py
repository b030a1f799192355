"""Waiting for a device: what a call queued there is done, and only then timed or weighed."""

import torch


def wait_for(device: torch.device) -> None:
    """Until all that was queued on `device` is done; on a CPU it is when the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
