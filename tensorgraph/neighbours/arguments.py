"""Arguments of the public functions, checked in one place: what is wrong, and what is allowed, in one line."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from ase import Atoms

DTYPES = {"float32": torch.float32, "float64": torch.float64}
LARGEST_LENGTH = 1e12  # Å; beyond it float64 no longer tells where an atom is, relative to its neighbours


def checked_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype of `dtype`, a name or a torch dtype. Raises ValueError for one that no model has."""
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ValueError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}, as names or torch dtypes")
    return found


def checked_device(device: str | torch.device) -> torch.device:
    """The torch device of `device`. Raises ValueError for one that is unknown, or not present on this machine."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # AssertionError: no CUDA in torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"device {str(device)!r} cannot be used: {reason}; allowed here: {_devices()}") from None
    if found.type == "meta":
        raise ValueError(f"device 'meta' holds no values; allowed here: {_devices()}")
    return found


def chosen_device(device: str) -> torch.device:
    """As `checked_device`; `auto` is a GPU where there is one, else the CPU."""
    return checked_device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def checked_cutoff(value: Any, name: str = "cutoff", zero: bool = False) -> float:
    """The length (Å) as a float. Raises ValueError unless it is a number above 0, or 0 where `zero`, and up to 1e12."""
    is_number = not isinstance(value, bool) and isinstance(value, numbers.Real)
    if is_number and (0 < value <= LARGEST_LENGTH or (zero and value == 0)):
        return float(value)
    least = "of at least 0" if zero else "above 0"
    raise ValueError(f"the {name} must be a number {least} and up to {LARGEST_LENGTH:g} Å, not {value!r}")


def checked_count(name: str, count: object) -> int:
    """A number of things, at least one. Raises TypeError for what is no integer and ValueError below one."""
    if isinstance(count, bool) or not isinstance(count, numbers.Integral):
        raise TypeError(f"{name} must be an integer, not {type(count).__name__} {count!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")
    return int(count)


def each_structure(structures: object) -> Iterator[Atoms]:
    """The structures one by one; a single `Atoms` is one structure. Raises TypeError for anything else among them."""
    if isinstance(structures, Atoms):
        structures = [structures]
    if isinstance(structures, str) or not isinstance(structures, Iterable):
        raise TypeError(f"structures must be ase.Atoms or an iterable of them, not {type(structures).__name__}")
    return _only_atoms(structures)


def check_keywords(owner: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise TypeError for the first keyword of `given` that is not in `allowed`."""
    allowed = tuple(allowed)
    for keyword in given:
        if keyword not in allowed:
            choice = f"allowed: {', '.join(allowed)}" if allowed else "it takes none"
            raise TypeError(f"{owner} has no keyword {keyword!r}; {choice}")


def _only_atoms(structures: Iterable[object]) -> Iterator[Atoms]:
    for index, atoms in enumerate(structures):
        if not isinstance(atoms, Atoms):
            raise TypeError(f"structure {index} is {type(atoms).__name__}, not ase.Atoms")
        yield atoms


def _devices() -> str:
    return ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
