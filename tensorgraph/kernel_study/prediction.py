"""How long a kernel should take on a named GPU: a roofline with four roofs.

For a million (atom, channel) rows, the largest of

- memory: the bytes of inputs and outputs, each moved once, at the bandwidth of a copy;
- floating point: the floating-point instructions at the peak rate of their units;
- issue: all instructions at the rate at which the schedulers issue them;
- latency: what is resident at one time, as registers allow (the occupancy), is done no sooner than its loads have
  come back once and its instructions have been issued one per clock.

Assumptions: no cache holds inputs or outputs; a copy reaches `COPY_FRACTION` of the datasheet's bandwidth; all loads of
a thread are on their way at the same time, for `LATENCY`; spills cost their instructions and no bandwidth; clocks
stay at their boost value; there are many more rows than fit at one time; a launch costs nothing. Most of these err
towards too fast: the prediction is a floor to compare measured times with, not a time to expect.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorgraph.kernel_study.disassembly import MachineCode

ROWS = 1_000_000
"""Rows that a predicted time is for."""

COPY_FRACTION = 0.9
"""Of the datasheet's bandwidth, in a large copy: measured on an H200 (4.3 of 4.8 TB/s), assumed for the others."""

LATENCY = 0.8e-6
"""Seconds until a load from a busy memory has come back; an assumption of this model, the same for all GPUs."""

_MAX_BLOCKS = 32  # resident at one time on a multiprocessor of each of these GPUs


@dataclass(frozen=True)
class GPU:
    """What the model knows of a GPU. A unit is a streaming multiprocessor (AMD: a compute unit).

    Attributes:
        name: the product.
        target: what kernels are compiled for, as `Target.name`.
        bandwidth: TB/s of its memory.
        float32, float64: peak TFLOP/s of the vector units; a fused multiply-add counts as two.
        units: how many.
        clock: GHz, boost.
        issue: instructions of single threads that a unit issues per clock.
        packed: whether the float32 peak needs instructions that work on two numbers.
        registers: 32-bit registers of a unit.
        threads: the most that are resident on a unit.
    """

    name: str
    target: str
    bandwidth: float
    float32: float
    float64: float
    units: int
    clock: float
    issue: int = 128
    packed: bool = False
    registers: int = 65536
    threads: int = 2048

    @property
    def copy_bandwidth(self) -> float:
        """Bytes per second that a copy reads and writes."""
        return COPY_FRACTION * self.bandwidth * 1e12


# Bandwidths and peaks: the vendors' datasheets of A100 80GB SXM, H100 SXM, H200 SXM, B200 (DGX: an eighth) and MI300X;
# units and the clocks of A100 and MI300X: their architecture whitepapers, but B200's units as its driver reports them.
# The clocks of H100, H200 and B200 are what their float32 peaks imply (128 multiply-adds per unit and clock).
# Registers and threads: CUDA C++ Programming Guide, table of compute capabilities; CDNA 3 instruction set guide (512
# vector registers of 64 lanes in each of four SIMDs, eight wavefronts each).
GPUS = (
    GPU("A100 80GB", "sm_80", bandwidth=2.039, float32=19.5, float64=9.7, units=108, clock=1.41),
    GPU("H100 SXM", "sm_90", bandwidth=3.35, float32=67, float64=34, units=132, clock=1.98),
    GPU("H200", "sm_90", bandwidth=4.8, float32=67, float64=34, units=132, clock=1.98),
    GPU("B200", "sm_100", bandwidth=8.0, float32=75, float64=37, units=148, clock=1.98),
    GPU("MI300X", "gfx942", bandwidth=5.3, float32=163.4, float64=81.7, units=304, clock=2.1,
        issue=64, packed=True, registers=4 * 512 * 64),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What a row moves, and how rows are laid on threads.

    Attributes:
        bytes_per_row: read and written.
        double: whether arithmetic is in float64.
        block: rows of a block.
        threads: threads of a block; a multiple of `block` where threads repeat each other's work.
    """

    bytes_per_row: int
    double: bool
    block: int
    threads: int


@dataclass(frozen=True)
class Prediction:
    """Times in microseconds per million rows; `occupancy` is the fraction of a unit's threads that are resident."""

    gpu: str
    occupancy: float
    memory: float
    floating_point: float
    issue: float
    latency: float

    @property
    def limits(self) -> dict[str, float]:
        """The four roofs."""
        return {
            "memory": self.memory,
            "floating point": self.floating_point,
            "issue": self.issue,
            "latency": self.latency,
        }

    @property
    def limit(self) -> str:
        """The roof that binds."""
        return max(self.limits, key=self.limits.__getitem__)

    @property
    def microseconds(self) -> float:
        """The predicted time."""
        return max(self.limits.values())


def predict(gpu: GPU, code: MachineCode, work: Work) -> Prediction:
    """The time of a million rows on a GPU."""
    threads = ROWS * work.threads / work.block
    blocks = resident_blocks(gpu, code.registers, work.threads)
    lifetime = LATENCY + code.issued / (gpu.clock * 1e9)
    seconds = (
        ROWS * work.bytes_per_row / gpu.copy_bandwidth,
        threads * _multiply_adds(gpu, code, work.double) / _multiply_add_rate(gpu, work.double),
        threads * code.issued / (gpu.issue * gpu.units * gpu.clock * 1e9),
        threads * lifetime / (blocks * work.threads * gpu.units),
    )
    return Prediction(gpu.name, blocks * work.threads / gpu.threads, *(1e6 * second for second in seconds))


def resident_blocks(gpu: GPU, registers: int, threads: int) -> int:
    """Blocks that a unit holds at one time; at least one, since a kernel that compiled can run.

    Args:
        registers: of a thread; the hardware gives them out in eights.
        threads: of a block.
    """
    of_thread = -(-registers // 8) * 8
    return max(1, min(_MAX_BLOCKS, gpu.threads // threads, gpu.registers // (of_thread * threads)))


def _multiply_adds(gpu: GPU, code: MachineCode, double: bool) -> int:
    """Of a thread: what its floating-point instructions take of the peak, counted in multiply-adds."""
    if gpu.packed and not double:
        return 2 * code.floating_point  # on one number or two, an instruction takes the same time
    return code.floating_point + code.packed


def _multiply_add_rate(gpu: GPU, double: bool) -> float:
    return (gpu.float64 if double else gpu.float32) * 1e12 / 2
