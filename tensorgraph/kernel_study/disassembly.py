"""What the machine code of one kernel holds: registers, stack, spills, and how many instructions of which kind.

Two dialects are read: SASS with its resource usage, as NVIDIA's cuobjdump prints them, and AMD's assembly with its
metadata, as LLVM prints it. Every line counts once; that is also how often it runs in the kernels of the invariants,
which have no loops.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tensorgraph.errors import KernelError

KINDS = (
    "multiply_add",
    "add",
    "multiply",
    "global_load",
    "global_store",
    "spill_load",
    "spill_store",
    "integer",
    "other",
)
"""Kinds of instructions. Integer arithmetic is that of addresses; moves, constants and branches are `other`."""

_Rules = tuple[tuple[str, re.Pattern[str]], ...]


def _rules(**patterns: str) -> _Rules:
    return tuple((kind, re.compile(pattern)) for kind, pattern in patterns.items())


# IMAD.MOV and HFMA2 are the compiler's ways to write a move and a constant.
_NVIDIA = _rules(
    multiply_add=r"[FD]FMA2?\b",
    add=r"[FD]ADD2?\b",
    multiply=r"[FD]MUL2?\b",
    global_load=r"LDG\b",
    global_store=r"STG\b",
    spill_load=r"LDL\b",
    spill_store=r"STL\b",
    integer=r"U?(IMAD\b(?!\.MOV)|IADD|ISETP|IABS|I?MNMX|LEA|SHF|SHL|SHR|LOP3|PRMT|BFE|SGXT|ISCADD|VIADD|I2F|F2I)",
)
_AMD = _rules(
    multiply_add=r"v_(pk_)?(fma|fmac|mad|mac|fmamk|fmaak)_f(32|64)",
    add=r"v_(pk_)?(add|sub|subrev)_f(32|64)",
    multiply=r"v_(pk_)?mul_f(32|64)",
    global_load=r"(global|flat|buffer)_load",
    global_store=r"(global|flat|buffer)_store",
    spill_load=r"scratch_load",
    spill_store=r"scratch_store",
    integer=r"v_(add|addc|sub|subb|mul|mad|lshl|lshr|lshlrev|lshrrev|ashr|ashrrev|and|or|xor|bfe|cmp|cmpx)_",
)

_SASS_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+\{?\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_USAGE = re.compile(r"\bREG:(\d+) STACK:(\d+)\b.*?\bLOCAL:(\d+)")
_AMD_LINE = re.compile(r"^\s+((?:v|s|ds|global|flat|buffer|scratch)_\w+)", re.MULTILINE)
_METADATA = re.compile(r"^\s*-?\s*\.(\w+):\s+(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class MachineCode:
    """One kernel as compiled for one target.

    Attributes:
        registers: 32-bit registers of a thread; on AMD the vector registers of a lane, accumulators included.
        stack_bytes: local memory (AMD: scratch) of a thread.
        mix: how many instructions of each of `KINDS`.
        opcodes: how many instructions of each opcode, its modifiers left out, sorted.
        packed: floating-point instructions that work on two numbers.
        issued: instructions that take an issue slot of the vector units; AMD's scalar ones have slots of their own.
    """

    registers: int
    stack_bytes: int
    mix: tuple[tuple[str, int], ...]
    opcodes: tuple[tuple[str, int], ...]
    packed: int
    issued: int

    def count(self, *kinds: str) -> int:
        """Instructions of some kinds. Raises KeyError for what is no kind."""
        counts = dict(self.mix)
        return sum(counts[kind] for kind in kinds)

    @property
    def floating_point(self) -> int:
        """Floating-point instructions; a packed one counts once."""
        return self.count("multiply_add", "add", "multiply")

    @property
    def spills(self) -> bool:
        """Whether any value left the registers."""
        return bool(self.stack_bytes or self.count("spill_load", "spill_store"))


def read_sass(dump: str) -> MachineCode:
    """The kernel in the text of ``cuobjdump -res-usage -sass``. Raises KernelError where there is none."""
    usage = _USAGE.search(dump)
    names = [name for name in _SASS_LINE.findall(dump) if name != "NOP"]  # padding behind the last instruction
    if usage is None or not names:
        raise KernelError("cuobjdump gave no resource usage or no instructions")
    registers, stack, local = map(int, usage.groups())
    packed = sum(re.match(r"F(FMA|ADD|MUL)2\b", name) is not None for name in names)
    opcodes = [name.split(".")[0] for name in names]
    return MachineCode(registers, max(stack, local), _mix(names, _NVIDIA), _counted(opcodes), packed, len(names))


def read_amdgcn(assembly: str) -> MachineCode:
    """The kernel in LLVM's assembly for AMD. Raises KernelError where it has no metadata.

    Besides the instructions on scratch memory, a kernel that LLVM's own count calls spilled has spilled.
    """
    metadata = {key: int(value) for key, value in _METADATA.findall(assembly)}
    names = _AMD_LINE.findall(assembly)
    if not {"vgpr_count", "private_segment_fixed_size"} <= metadata.keys() or not names:
        raise KernelError("the assembly has no metadata or no instructions")
    stack = max(metadata["private_segment_fixed_size"], 4 * metadata.get("vgpr_spill_count", 0))
    opcodes = [re.sub(r"_(e32|e64|dpp|sdwa)$", "", name) for name in names]
    return MachineCode(
        registers=metadata["vgpr_count"],
        stack_bytes=stack,
        mix=_mix(names, _AMD),
        opcodes=_counted(opcodes),
        packed=sum(re.match(r"v_pk_\w+_f32", name) is not None for name in names),
        issued=sum(not name.startswith("s_") for name in names),
    )


def _mix(names: Iterable[str], rules: _Rules) -> tuple[tuple[str, int], ...]:
    counts = Counter(next((kind for kind, rule in rules if rule.match(name)), "other") for name in names)
    return tuple((kind, counts[kind]) for kind in KINDS)


def _counted(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(names).items()))
