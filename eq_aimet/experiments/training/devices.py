"""The devices and precisions of a training, and the check that this machine has them."""

from __future__ import annotations

from eq_aimet.arguments import check_choice, check_integer
from eq_aimet.errors import InvalidArgumentError

__all__ = ["DEVICES", "PRECISIONS", "check_devices"]

DEVICES = ("cpu", "cuda")
PRECISIONS = ("32", "bf16", "16")


def check_devices(device: str, devices: int, nodes: int, precision: str) -> None:
    """Check that this machine has the devices, and that they compute in the precision.

    The check imports torch only if `device` is "cuda".

    Args:
        device: "cpu" or "cuda".
        devices: The number of devices of each machine, or of processes on a CPU.
        nodes: The number of machines.
        precision: "32", "bf16" or "16".

    Raises:
        InvalidArgumentError: An argument has another value, or torch finds fewer GPUs.

    Example:
        >>> check_devices("cpu", 1, 1, "bf16")
    """
    check_choice("device", device, DEVICES, remedy='Try `device="cpu"`.')
    check_integer("devices", devices, remedy="Leave it out to take 1.")
    check_integer("nodes", nodes, remedy="Leave it out to take 1.")
    check_choice("precision", precision, PRECISIONS, remedy='Try `precision="32"`.')
    if device == "cpu":
        if precision == "16":
            raise InvalidArgumentError(
                "precision",
                received="'16' for a CPU",
                expected="'16' on a CUDA device only",
                remedy='Take `precision="32"` or `precision="bf16"`, or `device="cuda"`.',
            )
        return
    import torch  # takes two seconds

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found:
        raise InvalidArgumentError(
            "device",
            received="'cuda', but torch finds no CUDA device",
            expected="a machine with an NVIDIA GPU and a CUDA build of torch",
            remedy="Leave it out to train on the CPU.",
        )
    if devices > found:
        raise InvalidArgumentError(
            "devices",
            received=devices,
            expected=f"at most {found}, the number of CUDA devices that torch finds",
            remedy="Take fewer, or check CUDA_VISIBLE_DEVICES.",
        )
