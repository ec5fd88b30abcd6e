"""What machine code holds, and what a kernel of it should take: counts, the model of its time, and their table."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.cli.output import print_table
from tensorgraph.errors import KernelError
from tensorgraph.kernel_study import (
    DTYPES,
    GPU,
    GPUS,
    KernelCost,
    KernelStudy,
    MachineCode,
    Target,
    Work,
    predict,
    read_amdgcn,
    read_sass,
)
from tensorgraph.kernel_study.disassembly import KINDS
from tensorgraph.kernel_study.prediction import resident_blocks
from tensorgraph.reports.tables import kernels_table

PROGRAMS = ("forward", "backward", "double_backward")

SASS = """
Resource usage:
 Function forward_kernel:
  REG:40 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:936 TEXTURE:0 SURFACE:0 SAMPLER:0

        /*0000*/                   LDC R1, c[0x0][0x37c] ;           /* 0x0000df00ff017b82 */
                                                                     /* 0x000e220000000800 */
        /*0010*/              @!P0 LDG.E R3, desc[UR4][R2.64] ;      /* 0x0 */
        /*0020*/                   IMAD.WIDE R2, R3, 0x4, R8 ;       /* 0x0 */
        /*0030*/                   IMAD.MOV.U32 R5, RZ, RZ, R4 ;     /* 0x0 */
        /*0040*/                   HFMA2 R6, -RZ, RZ, 2, 0 ;         /* 0x0 */
        /*0050*/                   FFMA R7, R3, R3, R5 ;             /* 0x0 */
        /*0060*/                   FFMA2 R8, R8.F32x2.HI_LO, R8.F32x2.HI_LO, R4.F32x2.HI_LO ; /* 0x0 */
        /*0070*/                   FADD.FTZ R7, R7, R3 ;             /* 0x0 */
        /*0080*/                   DMUL R8, R8, R8 ;                 /* 0x0 */
        /*0090*/                   STL [R1+0x4], R7 ;                /* 0x0 */
        /*00a0*/                   LDL.LU R7, [R1+0x4] ;             /* 0x0 */
        /*00b0*/              @UP0 STG.E desc[UR4][R2.64], R7 ;      /* 0x0 */
        /*00c0*/                   EXIT ;                            /* 0x0 */
        /*fff0*/                   NOP;                              /* 0x0 */
"""

AMD = """
forward_kernel:
\ts_load_dwordx4 s[0:3], s[0:1], 0x0
\tv_lshlrev_b32_e32 v1, 2, v0
\tglobal_load_dword v2, v1, s[0:1]
\ts_waitcnt vmcnt(0)
\tv_fmac_f32_e32 v3, v2, v2
\tv_pk_fma_f32 v[4:5], v[2:3], v[2:3], v[4:5]
\tv_pk_mov_b32 v[6:7], v[2:3], v[2:3]
\tv_add_f64 v[4:5], v[4:5], v[2:3]
\tscratch_store_dword off, v3, off
\tglobal_store_dword v1, v3, s[2:3]
\ts_endpgm
\t.amdgpu_metadata
  - .agpr_count:     0
    .private_segment_fixed_size: 8
    .vgpr_count:     72
    .vgpr_spill_count: 0
"""


def code(registers: int = 64, **counts: int) -> MachineCode:
    mix = tuple((kind, counts.get(kind, 0)) for kind in KINDS)
    return MachineCode(registers, 0, mix, (), packed=0, issued=sum(counts.values()))


def test_sass_is_counted() -> None:
    found = read_sass(SASS)
    assert (found.registers, found.stack_bytes, found.packed, found.issued) == (40, 16, 1, 13)
    assert dict(found.mix) == {
        "multiply_add": 2,
        "add": 1,
        "multiply": 1,
        "global_load": 1,
        "global_store": 1,
        "spill_load": 1,
        "spill_store": 1,
        "integer": 1,
        "other": 4,
    }
    assert dict(found.opcodes)["IMAD"] == 2
    assert "NOP" not in dict(found.opcodes)
    assert found.floating_point == 4
    assert found.spills


def test_amd_assembly_is_counted() -> None:
    found = read_amdgcn(AMD)
    assert (found.registers, found.stack_bytes, found.packed, found.issued) == (72, 8, 1, 8)
    mix = dict(found.mix)
    assert (mix["multiply_add"], mix["add"], mix["multiply"], mix["integer"]) == (2, 1, 0, 1)
    assert (mix["global_load"], mix["global_store"], mix["spill_load"], mix["spill_store"]) == (1, 1, 0, 1)
    assert dict(found.opcodes)["v_fmac_f32"] == 1
    assert found.spills
    assert read_amdgcn(AMD.replace("vgpr_spill_count: 0", "vgpr_spill_count: 5")).stack_bytes == 20


@pytest.mark.parametrize("text", ["", SASS.split("SHARED")[0], SASS.replace("REG", "")])
def test_what_is_no_machine_code_is_refused(text: str) -> None:
    for read in (read_sass, read_amdgcn):
        with pytest.raises(KernelError):
            read(text)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
@given(
    counts=st.tuples(st.integers(0, 3000), st.integers(0, 500), st.integers(1, 255), st.integers(1, 1000)),
    more=st.tuples(st.integers(0, 3000), st.integers(0, 500), st.integers(0, 255), st.integers(0, 1000)),
    double=st.booleans(),
)
def test_more_work_is_never_faster(gpu: GPU, counts: tuple[int, ...], more: tuple[int, ...], double: bool) -> None:
    def time(fma: int, integer: int, registers: int, moved: int) -> float:
        kernel = code(registers, multiply_add=fma, integer=integer)
        return predict(gpu, kernel, Work(moved, double, block=128, threads=128)).microseconds

    assert time(*(a + b for a, b in zip(counts, more, strict=True))) >= time(*counts) > 0


def test_each_limit_binds_where_it_should() -> None:
    h200 = next(gpu for gpu in GPUS if gpu.name == "H200")
    light = Work(bytes_per_row=8, double=False, block=128, threads=128)
    assert predict(h200, code(32, multiply_add=1), replace(light, bytes_per_row=400)).limit == "memory"
    assert predict(h200, code(32, multiply_add=5000), replace(light, double=True)).limit == "floating point"
    assert predict(h200, code(32, other=5000), light).limit == "issue"
    assert predict(h200, code(255, multiply_add=100), light).limit == "latency"
    copy = predict(h200, code(16, other=10), replace(light, bytes_per_row=432))
    assert copy.microseconds == pytest.approx(100)  # 432 MB at 4.32 TB/s
    repeated = predict(h200, code(32, other=5000), replace(light, threads=256))
    assert repeated.microseconds == pytest.approx(2 * predict(h200, code(32, other=5000), light).microseconds)


def test_packed_instructions_count_for_what_they_do() -> None:
    """Of 1000 multiply-adds 600 work on two numbers: 1600 in float32, or 1000 that take as long as two each.

    B200: 75 / 2 TFMA/s, 128 per clock on 148 units at 1.98 GHz. MI300X: 163.4 / 2 TFMA/s if all are packed, 81.7 / 2 in
    float64, 64 lanes per clock on 304 units at 2.1 GHz.
    """
    packed = replace(code(64, multiply_add=1000), packed=600)
    single = Work(bytes_per_row=8, double=False, block=128, threads=128)
    b200, mi300x = (predict(gpu, packed, single) for gpu in GPUS if gpu.name in ("B200", "MI300X"))
    assert b200.floating_point == pytest.approx(1600 / 37.5)
    assert b200.issue == pytest.approx(1000 / (128 * 148 * 1.98e-3))
    assert mi300x.floating_point == pytest.approx(2000 / 81.7)
    assert mi300x.issue == pytest.approx(1000 / (64 * 304 * 2.1e-3))
    double = predict(GPUS[-1], code(64, multiply_add=1000), replace(single, double=True))
    assert (double.gpu, double.floating_point) == ("MI300X", pytest.approx(1000 / 40.85))


def test_registers_bound_what_is_resident() -> None:
    """Against the occupancy tables of compute capability 9.0: 65,536 registers and 2048 threads."""
    h200 = next(gpu for gpu in GPUS if gpu.name == "H200")
    assert [resident_blocks(h200, registers, 128) for registers in (10, 32, 33, 64, 65, 128, 161, 168, 169, 255)] == [
        16, 16, 12, 8, 7, 4, 3, 3, 2, 2]  # fmt: skip


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_the_peaks_agree_with_units_and_clocks(gpu: GPU) -> None:
    """Multiply-adds per unit and clock: 64 in float32 on compute capability 8.0, else 128; half of it in float64."""
    per_clock = [peak * 1e3 / (2 * gpu.units * gpu.clock) for peak in (gpu.float32, gpu.float64)]
    assert per_clock[0] == pytest.approx(64 if gpu.name.startswith("A100") else 128, rel=0.02)
    assert per_clock[1] == pytest.approx(per_clock[0] / 2, rel=0.02)


def test_the_table_fits_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    busy = code(255, **dict.fromkeys(KINDS, 9999))
    work = Work(10_000, double=True, block=128, threads=128)
    done = [
        KernelCost(name, Target.parse(gpu.target), DTYPES[1], 10_000, 100_000, busy, None, (predict(gpu, busy, work),))
        for gpu in GPUS
        for name in PROGRAMS
    ]
    failed = [KernelCost(name, Target("cuda", 999), DTYPES[0], 10_000, 100_000, None, "why", ()) for name in PROGRAMS]
    print_table(kernels_table(KernelStudy("a_name", "3.9.0", 128, (*done, *failed))))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert "not compiled: forward, backward, double_backward for sm_999 in float32: why" in lines
    assert sum("double_backward" in line for line in lines) == 2 * len(GPUS) + 1
    assert not any("…" in line for line in lines)
