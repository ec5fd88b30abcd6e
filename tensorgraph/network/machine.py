"""What the cost model knows of a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Rates in operations or bytes per second; a multiply-add is two operations.

    Attributes:
        name: what the rates are of.
        matrix: operations in products of large matrices.
        pairs: operations in loops over pairs of atoms.
        bandwidth: bytes to and from memory.
        fused: whether what the loops over pairs hand to each other stays in registers, and is not stored.
    """

    name: str
    matrix: float
    pairs: float
    bandwidth: float
    fused: bool


# The CPU: round numbers as measured for float32 with AVX-512 (an Intel Xeon at 2.8 GHz), of PyTorch's products of
# matrices (199 to 212), of `pairs_cpu.c` (34 to 59) and of a copy (19 to 22), in 10⁹ per second.
# The GPU: the datasheet's peak of the vector units, in which float32 is not rounded, and the bandwidth of a copy.
MACHINES = (
    Machine("two CPU cores", matrix=200e9, pairs=50e9, bandwidth=20e9, fused=True),
    Machine("H200", matrix=67e12, pairs=67e12, bandwidth=4.3e12, fused=False),
)
