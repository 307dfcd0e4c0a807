"""Which number type to compute in, and why."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lexome.core.errors import InputError
from lexome.core.names import pick

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16", "float16", "auto"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A number type and the reason for it, for the user to read."""

    dtype: "torch.dtype"
    reason: str

    @property
    def name(self) -> str:
        """The number type without ``torch.``."""
        return str(self.dtype).removeprefix("torch.")


def choose_precision(precision: str, device: "torch.device") -> Choice:
    """Resolve a precision.

    ``auto`` takes bfloat16 where the hardware multiplies it natively (NVIDIA GPUs from Ampere,
    CPUs with AMX or AVX512-BF16) and float32 elsewhere.

    Raises
    ------
    UnknownName
        If `precision` is none of the four names.
    """
    import torch

    pick("precision", precision, ("float32", "bfloat16", "float16", "auto"))
    if precision != "auto":
        return Choice(dtype=getattr(torch, precision), reason="as asked")
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        if major >= 8:
            return Choice(dtype=torch.bfloat16, reason="this GPU multiplies bfloat16 natively")
    elif device.type == "cpu" and native_bfloat16_cpu():
        return Choice(dtype=torch.bfloat16, reason="this CPU multiplies bfloat16 natively")
    return Choice(dtype=torch.float32, reason="this device has no native bfloat16 multiplication")


def native_bfloat16_cpu() -> bool:
    """Tell whether this CPU has instructions that multiply bfloat16 (AMX or AVX512-BF16)."""
    import torch

    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def choose_device(device: str) -> "torch.device":
    """Resolve a device; ``auto`` takes a GPU where there is one.

    Raises
    ------
    InputError
        If the device does not exist on this machine.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}). "
            "Use 'auto', 'cpu', or 'cuda' where a GPU is present."
        ) from error
    return chosen
