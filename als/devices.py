"""The device that a network runs on, by torch's name for it."""

import torch

from als.errors import InputError


def device_named(name: str) -> torch.device:
    """The device "cpu", "cuda", "cuda:1", ... Raises InputError where it is not here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"device '{name}' cannot be used here ({reason}); try cpu.") from error
    return device
