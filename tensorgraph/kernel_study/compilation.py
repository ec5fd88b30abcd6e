"""Every kernel of a spec, compiled ahead of time for GPUs that are not there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensorgraph.compiler import Compilation
from tensorgraph.errors import KernelError, MissingToolError
from tensorgraph.kernel_study.disassembly import MachineCode, read_amdgcn, read_sass
from tensorgraph.kernel_study.pairs import MODULES, PairKernel, pair_kernels
from tensorgraph.kernel_study.prediction import GPUS, ROWS, Prediction, Work, predict
from tensorgraph.scalar import StraightLine, Table

_WORKER = Path(__file__).with_name("worker.py")
_INVARIANTS = "invariants_triton.py"
_REASON_LENGTH = 200

MAX_OPERATIONS = 6000
"""Of a program that is compiled: with one of 6,900 the four targets and two dtypes took more than ten minutes."""


@dataclass(frozen=True)
class Target:
    """What a kernel is compiled for: ``("cuda", 90)`` is compute capability 9.0, ``("hip", "gfx942")`` CDNA 3."""

    backend: str
    arch: int | str

    @property
    def name(self) -> str:
        """As the vendors' tools write it."""
        return f"sm_{self.arch}" if self.backend == "cuda" else str(self.arch)

    @property
    def lanes(self) -> int:
        """Threads of a warp (AMD: of a wavefront, 64 up to gfx9 and 32 after it)."""
        return 64 if self.backend == "hip" and int(str(self.arch)[3:-2]) <= 9 else 32

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that `text` names. Raises ValueError for anything but ``90``, ``sm_90`` and ``gfx942``."""
        if match := re.fullmatch(r"(?:sm_)?(\d{2,3})", text, re.ASCII):
            return cls("cuda", int(match[1]))
        if re.fullmatch(r"gfx\d{1,2}[0-9a-f]{2}", text, re.ASCII):
            return cls("hip", text)
        raise ValueError(f"{text!r} is no target; allowed: a compute capability such as 90, or AMD's such as gfx942")


@dataclass(frozen=True)
class Dtype:
    """A type of numbers: torch's name, triton's name, and its bytes."""

    name: str
    triton: str
    size: int


OPERATORS = ("invariants", "pairs")
TARGETS = (Target("cuda", 80), Target("cuda", 90), Target("cuda", 100), Target("hip", "gfx942"))
DTYPES = (Dtype("float32", "fp32", 4), Dtype("float64", "fp64", 8))


@dataclass(frozen=True)
class KernelCost:
    """One kernel, in one dtype, on one target. Where it was not compiled, `code` is None and `reason` tells why.

    Attributes:
        kernel: forward, backward or double_backward of the invariants, or a `PairKernel`'s name.
        bytes_per_row: of its inputs and outputs.
        operations_per_row: additions and multiplications of its program.
        predictions: one for each known GPU of this target; of kernels without loops alone.
        row: what bytes and operations are per.
    """

    kernel: str
    target: Target
    dtype: Dtype
    bytes_per_row: int
    operations_per_row: int
    code: MachineCode | None
    reason: str | None
    predictions: tuple[Prediction, ...]
    row: str = "atom and channel"

    def to_json(self) -> dict[str, Any]:
        """As in the document of `KernelStudy.to_json`."""
        code = self.code
        return {
            "kernel": self.kernel,
            "target": self.target.name,
            "dtype": self.dtype.name,
            "row": self.row,
            "bytes_per_row": self.bytes_per_row,
            "operations_per_row": self.operations_per_row,
            "reason": self.reason,
            "registers": code and code.registers,
            "stack_bytes": code and code.stack_bytes,
            "spill_loads": code and code.count("spill_load"),
            "spill_stores": code and code.count("spill_store"),
            "mix": code and dict(code.mix),
            "opcodes": code and dict(code.opcodes),
            "predictions": [
                asdict(row) | {"microseconds": row.microseconds, "limit": row.limit} for row in self.predictions
            ],
        }


@dataclass(frozen=True)
class KernelStudy:
    """All kernels of a spec, and with which triton and how many channels they were compiled."""

    name: str
    triton: str
    channels: int
    kernels: tuple[KernelCost, ...]

    def to_json(self) -> dict[str, Any]:
        """One document; `docs/kernels.md` describes it."""
        return {
            "name": self.name,
            "triton": self.triton,
            "channels": self.channels,
            "rows": ROWS,
            "kernels": [cost.to_json() for cost in self.kernels],
        }


@dataclass(frozen=True)
class _Job:
    """A program of the invariants, by its name, or a pair kernel, for one target and dtype."""

    kernel: str
    program: StraightLine | PairKernel
    target: Target
    dtype: Dtype

    @property
    def reason(self) -> str | None:
        """Why it is not compiled, where it is not."""
        if isinstance(self.program, PairKernel) or self.operations_per_row <= MAX_OPERATIONS:
            return None
        return f"it has {self.operations_per_row} operations, more than {MAX_OPERATIONS}"

    @property
    def bytes_per_row(self) -> int:
        if isinstance(self.program, PairKernel):
            return self.program.bytes_per_pair(self.dtype.size)
        return self.dtype.size * sum(array.size for array in (*self.program.inputs, *self.program.outputs))

    @property
    def operations_per_row(self) -> int:
        if isinstance(self.program, PairKernel):
            return self.program.operations
        return self.program.operations.total

    def request(self, channels: int) -> dict[str, Any]:
        own = {"module": _INVARIANTS, "kernel": self.kernel, "channels": channels}
        if isinstance(self.program, PairKernel):
            own = self.program.request()
        target = {"backend": self.target.backend, "arch": self.target.arch, "lanes": self.target.lanes}
        return {**own, "dtype": self.dtype.triton, **target}


def study_kernels(
    compilation: Compilation,
    targets: Iterable[Target] = TARGETS,
    dtypes: Iterable[Dtype] = DTYPES,
    channels: int = 128,
    operators: Iterable[str] = OPERATORS,
) -> KernelStudy:
    """Compiles the kernels of some of a spec's `OPERATORS`; needs no GPU and writes to a temporary folder only.

    Raises:
        MissingToolError: triton or torch is not installed.
        KernelError: triton cannot be imported, what it made cannot be read, or the invariants are a table.
    """
    require_triton()
    programs, dtypes = _programs(compilation, channels, tuple(operators)), tuple(dtypes)
    jobs = [_Job(*program, target, dtype) for target in targets for dtype in dtypes for program in programs.items()]
    modules = {name: text for name, text in compilation.package.files if name in (_INVARIANTS, *MODULES)}
    try:
        with tempfile.TemporaryDirectory(prefix="tensorgraph-kernels-", ignore_cleanup_errors=True) as folder:
            requests = [job.request(channels) for job in jobs if not job.reason]
            answer, compiled = _compiled(Path(folder), modules, requests)
    except OSError as error:
        raise KernelError(f"cannot use a temporary folder: {error.strerror or error}") from error
    found = iter(compiled)
    costs = (_cost(job, {"reason": job.reason} if job.reason else next(found), answer) for job in jobs)
    return KernelStudy(compilation.spec.name, answer["triton"], channels, tuple(costs))


def _programs(
    compilation: Compilation, channels: int, operators: tuple[str, ...]
) -> dict[str, StraightLine | PairKernel]:
    programs: dict[str, StraightLine | PairKernel] = {}
    for name, program in compilation.instructions._asdict().items():
        if isinstance(program, Table):
            raise KernelError(
                f"the invariants of {compilation.spec.name} are a table, which has no kernels of its own; "
                "allowed: a spec with tensors of three dimensions"
            )
        if "invariants" in operators:
            programs[name] = program
    if "pairs" in operators:
        programs |= {kernel.name: kernel for kernel in pair_kernels(compilation, channels)}
    return programs


def require_triton() -> None:
    """Raises MissingToolError where triton, or torch, which the emitted module imports, is not installed."""
    missing = [module for module in ("triton", "torch") if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingToolError(
            f"compiling kernels needs {' and '.join(missing)}; install with: pip install {' '.join(missing)}"
            + (" (triton is made for Linux alone)" if "triton" in missing else "")
        )


def _compiled(
    folder: Path, modules: dict[str, str], jobs: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the worker tells of itself, and of each job."""
    for name, text in modules.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "request.json").write_text(json.dumps({"module": _INVARIANTS, "jobs": jobs}), encoding="utf-8")
    _run_worker(folder)
    return _read(folder / "answer.json"), [_read(folder / f"{number}.json") for number in range(len(jobs))]


def _run_worker(folder: Path) -> None:
    """Lets the worker answer the request in a folder, with triton's compiler on, and its cache in that folder too."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(folder / "cache")
    command = [sys.executable, "-P", str(_WORKER), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode:
        raise KernelError(f"compiling kernels failed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def _cost(job: _Job, result: dict[str, Any], answer: dict[str, Any]) -> KernelCost:
    code, reason = None, None
    try:
        code = _machine_code(job.target, result)
    except KernelError as error:
        reason = str(error)
    return KernelCost(
        kernel=job.kernel,
        target=job.target,
        dtype=job.dtype,
        bytes_per_row=job.bytes_per_row,
        operations_per_row=job.operations_per_row,
        code=code,
        reason=reason,
        predictions=_predictions(job, code, answer) if code else (),
        row="pair" if isinstance(job.program, PairKernel) else "atom and channel",
    )


def _machine_code(target: Target, result: dict[str, Any]) -> MachineCode:
    if "reason" in result:
        told, *_ = result["reason"].split("Repro command")  # which names files that are gone
        raise KernelError(" ".join(told.split())[:_REASON_LENGTH])
    return read_sass(result["text"]) if target.backend == "cuda" else read_amdgcn(result["text"])


def _predictions(job: _Job, code: MachineCode, answer: dict[str, Any]) -> tuple[Prediction, ...]:
    if isinstance(job.program, PairKernel):
        return ()  # it has loops: the model does not know how often they run
    block = answer["block"]  # rows, and threads
    work = Work(job.bytes_per_row, double=job.dtype.size == 8, block=block, threads=block)
    return tuple(predict(gpu, code, work) for gpu in GPUS if gpu.target == job.target.name)
