"""`tensorgraph kernels`: what compiles, the promise that kernels do not spill, and what is said where it cannot be."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tensorgraph import cli
from tensorgraph.compiler import compile_spec
from tensorgraph.errors import KernelError
from tensorgraph.kernel_study import DTYPES, TARGETS, KernelCost, KernelStudy, Target, compilation
from tensorgraph.kernel_study.pairs import NEIGHBOURS, pair_kernels
from tensorgraph.spec import load_spec, parse_spec

ROOT = Path(__file__).parents[1]
PROGRAMS = ("forward", "backward", "double_backward")

REGISTERS = {"sm_80": (32, 69, 96), "sm_90": (32, 71, 96), "sm_100": (38, 72, 99)}
"""Of hiphop5's three float32 kernels: the most that the compilers of triton 3.6 and 3.9 took."""

PAIR_KERNELS = """messages environment grad_T received grad_S grad_Q messages_2 grad_G grad_S_2 grad_Q_2
moments moments_backward moments_2""".split()
PAIR_REGISTERS = 168
"""Of each of hiphop5's pair kernels, in float32 on compute capability 9.0: room for six programs of 64 threads."""
SENSITIVITIES = {"sensitivities": 32, "sensitivities_backward": 48, "sensitivities_2": 80}
"""The same of their kernels: room for six programs of 128 threads and more."""

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed on this platform")


def kernels(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tensorgraph", "kernels", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment},
    )


@needs_triton
def test_kernels_keep_every_value_in_registers(tmp_path: Path) -> None:
    """The promise for hiphop5, held without a GPU; nothing is written beside the spec or at home."""
    call = [str(ROOT / "specs" / "hiphop5.yaml"), "--json", "--only", "invariants"]
    targets = [option for target in TARGETS[:3] for option in ("--arch", str(target.arch))]
    done = kernels(*call, *targets, cwd=tmp_path, HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    rows = json.loads(done.stdout)["kernels"]
    assert len(rows) == 2 * len(REGISTERS) * len(PROGRAMS)
    instructions = compile_spec(load_spec(ROOT / "specs" / "hiphop5.yaml")).instructions._asdict()
    for row in rows:
        target, program = row["target"], row["kernel"]
        assert row["reason"] is None
        assert (row["stack_bytes"], row["spill_loads"], row["spill_stores"]) == (0, 0, 0), row
        assert sum(row["mix"].values()) == sum(row["opcodes"].values())
        line = instructions[program]
        reads, writes = (sum(array.size for array in arrays) for arrays in (line.inputs, line.outputs))
        assert row["mix"]["global_store"] == writes
        assert row["mix"]["global_load"] <= reads
        assert row["bytes_per_row"] == {"float32": 4, "float64": 8}[row["dtype"]] * (reads + writes)
        assert row["opcodes"][{"float32": "FFMA", "float64": "DFMA"}[row["dtype"]]] > 0
        if row["dtype"] == "float32":
            assert row["registers"] <= REGISTERS[target][PROGRAMS.index(program)], row


@needs_triton
def test_pair_kernels_keep_every_value_in_registers(tmp_path: Path) -> None:
    """The promise for hiphop5: no kernel over pairs spills, and the sum over neighbours takes no shared memory."""
    call = [str(ROOT / "specs" / "hiphop5.yaml"), "--json", "--only", "pairs", "--arch", "90", "--dtype", "float32"]
    done = kernels(*call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["kernel"]: row for row in json.loads(done.stdout)["kernels"]}
    assert list(rows) == [*SENSITIVITIES, *PAIR_KERNELS]
    for row in rows.values():
        assert (row["reason"], row["row"], row["predictions"]) == (None, "pair", [])
        assert (row["stack_bytes"], row["spill_loads"], row["spill_stores"]) == (0, 0, 0), row
        assert row["registers"] <= SENSITIVITIES.get(row["kernel"], PAIR_REGISTERS), row
    for row in (rows[name] for name in PAIR_KERNELS):
        assert not {"LDS", "STS", "BAR", "ATOM", "ATOMG", "RED"} & row["opcodes"].keys(), row
        assert row["opcodes"]["FFMA"] > 0
        assert not any("MMA" in opcode for opcode in row["opcodes"])
    # Of a pair: 1/r, the cutoff function and their cotangents, and 20 functions with theirs; sums of tiles of 16 pairs.
    assert [rows[name]["bytes_per_row"] for name in SENSITIVITIES] == [4 * 22, 4 * (24 + 5), 4 * (46 + 5)]
    assert rows["environment"]["operations_per_row"] == 2 * 16 * 128
    assert rows["environment"]["bytes_per_row"] == round(4 * (16 + 128 + 16 * 128 / NEIGHBOURS) + 8)
    assert rows["grad_Q_2"]["operations_per_row"] == 2 * rows["grad_Q"]["operations_per_row"] == 4 * 20 * 128


def test_a_spec_without_network_has_no_pair_kernels() -> None:
    compilation = compile_spec(parse_spec("name: bare\nbasis: {family: hiphop, body_order: 2, max_rank: 0}\n"))
    assert pair_kernels(compilation, 128) == ()


@needs_triton
def test_rank_four_fits_registers_in_float32(tmp_path: Path) -> None:
    spec = tmp_path / "rank4.yaml"
    spec.write_text("name: rank4\nbasis: {family: flexible, body_order: 5, max_rank: 4}\n", encoding="utf-8")
    done = kernels(str(spec), "--json", "--arch", "90", "--dtype", "float32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["kernels"]
    assert [(row["kernel"], row["stack_bytes"], row["spill_loads"]) for row in rows] == [(p, 0, 0) for p in PROGRAMS]


@needs_triton
def test_other_targets_are_told_row_by_row(tmp_path: Path) -> None:
    """AMD where this triton has it; a target that no compiler knows costs its own rows and nothing else."""
    call = [str(ROOT / "specs" / "hipnn.yaml"), "--json", "--arch", "90", "--arch", "999", "--arch", "gfx942"]
    done = kernels(*call, "--only", "invariants", "--channels", "100", "--dtype", "float64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["name"], document["channels"]) == ("hipnn", 100)
    rows = document["kernels"]
    assert [row["target"] for row in rows] == [name for name in ("sm_90", "sm_999", "gfx942") for _ in PROGRAMS]
    for row in rows:
        assert (row["registers"] is None) == (row["reason"] is not None)
        assert bool(row["predictions"]) == (row["reason"] is None)
    assert all(row["reason"] is None for row in rows[:3])
    assert all("\n" not in row["reason"] for row in rows[3:6])


@needs_triton
def test_a_compiler_that_dies_costs_one_result(tmp_path: Path) -> None:
    """LLVM aborts the process on some targets."""
    (tmp_path / "dying.py").write_text(
        "import os\nBLOCK = 128\n"
        "def __getattr__(name):\n    os.abort() if name == 'dying_kernel' else exec('raise AttributeError(name)')\n"
    )
    jobs = [{"kernel": "dying"}, {"kernel": "missing"}]
    (tmp_path / "request.json").write_text(json.dumps({"module": "dying.py", "jobs": jobs}))
    worker = ROOT / "tensorgraph" / "kernel_study" / "worker.py"
    subprocess.run([sys.executable, "-P", str(worker), str(tmp_path)], check=True, capture_output=True)
    reasons = [json.loads((tmp_path / f"{number}.json").read_text())["reason"] for number in range(2)]
    assert reasons == ["the compiler was ended by SIGABRT", "AttributeError: missing_kernel"]
    assert json.loads((tmp_path / "answer.json").read_text())["block"] == 128


def work(folder: Path, module: str, *names: str) -> subprocess.CompletedProcess[str]:
    """The worker's run in a folder, of a module whose kernels do what they like."""
    (folder / "kernels.py").write_text(f"import os, signal, subprocess\nBLOCK = 128\n{module}")
    request = {"module": "kernels.py", "jobs": [{"kernel": name} for name in names]}
    (folder / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-P", str(ROOT / "tensorgraph" / "kernel_study" / "worker.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@needs_triton
def test_the_time_limit_ends_what_the_compiler_has_started(tmp_path: Path) -> None:
    module = (
        "def __getattr__(name):\n"
        f"    started = subprocess.Popen(['sleep', '120'])\n"
        f"    open({str(tmp_path / 'started')!r}, 'w').write(str(started.pid))\n"
        "    os.kill(os.getpid(), signal.SIGALRM)\n"
    )
    assert work(tmp_path, module, "slow").returncode == 0
    assert json.loads((tmp_path / "0.json").read_text()) == {"reason": "the compiler was ended by SIGALRM"}
    started = Path("/proc", (tmp_path / "started").read_text(), "stat")
    for _ in range(100):  # a process that nobody waits for may stay as a zombie
        if not started.exists() or started.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("what the compiler has started goes on")


@needs_triton
def test_a_result_that_cannot_be_written_ends_the_worker_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "0.part").mkdir()
    done = work(tmp_path, "", "missing")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "cannot write a result: Is a directory"


@needs_triton
def test_the_reason_of_a_tool_is_its_last_complaint() -> None:
    path = ROOT / "tensorgraph" / "kernel_study" / "worker.py"
    call = (
        f"import runpy; runpy.run_path({str(path)!r})['_output'](['sh', '-c', 'echo first >&2; echo why >&2; exit 3'])"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "RuntimeError: sh: why"


def test_targets_are_read_as_the_vendors_write_them() -> None:
    assert [Target.parse(text) for text in ("80", "sm_90", "100", "gfx942")] == list(TARGETS)
    wavefronts = {"gfx600": 64, "gfx803": 64, "gfx90a": 64, "gfx942": 64, "gfx1030": 32, "gfx1100": 32, "gfx1201": 32}
    assert {name: Target.parse(name).lanes for name in (*wavefronts, "90")} == wavefronts | {"90": 32}
    for text in ("", "9.0", "9", "sm90", "gfx", "gfx942; import os", "٩٠"):
        with pytest.raises(ValueError, match="is no target; allowed: "):
            Target.parse(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arch", "volta"], "tensorgraph: --arch: 'volta' is no target; allowed: "),
        (["--channels", "0"], "tensorgraph: --channels is 0; allowed: 1 to 2147483647\n"),
    ],
)
def test_a_wrong_option_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernels", "specs/hipnn.yaml", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


def test_a_missing_spec_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernels", "none.yaml"]) == 2
    assert capsys.readouterr() == ("", "none.yaml:1: there is no such file; allowed: the path of a YAML file\n")


def test_without_triton_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert cli.main(["kernels", str(ROOT / "specs" / "hipnn.yaml")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tensorgraph: compiling kernels needs triton; install with: pip install triton")
    assert captured.err.count("\n") == 1


def test_nothing_compiled_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = KernelCost("forward", Target("cuda", 999), DTYPES[0], 8, 0, None, "no such target", ())
    monkeypatch.setattr("tensorgraph.kernel_study.require_triton", lambda: None)
    monkeypatch.setattr("tensorgraph.kernel_study.study_kernels", lambda *_: KernelStudy("hipnn", "3.9.0", 128, (row,)))
    assert cli.main(["kernels", str(ROOT / "specs" / "hipnn.yaml"), "--arch", "999"]) == 1
    assert capsys.readouterr().out.startswith("not compiled: forward for sm_999 in float32: no such target\n")


@needs_triton
def test_a_program_that_is_too_long_is_not_compiled_and_says_so(monkeypatch) -> None:
    monkeypatch.setattr(compilation, "MAX_OPERATIONS", 200)
    compiled = compile_spec(parse_spec("{name: short, basis: {family: hiphop, body_order: 4, max_rank: 3}}"))
    study = compilation.study_kernels(compiled, TARGETS[1:2], DTYPES[:1], operators=("invariants",))
    told = {cost.kernel: cost.reason for cost in study.kernels}
    assert told.pop("forward") is None
    operations = compiled.instructions._asdict()
    assert told == {
        name: f"it has {operations[name].operations.total} operations, more than 200"
        for name in ("backward", "double_backward")
    }


@needs_triton
@pytest.mark.parametrize("operators", [("invariants",), ("pairs",), ("invariants", "pairs")])
def test_a_table_has_no_kernels_of_its_own(operators: tuple[str, ...]) -> None:
    text = (ROOT / "specs" / "snap8.yaml").read_text().replace("max_rank: 8", "max_rank: 1")
    with pytest.raises(KernelError, match=r"^the invariants of snap8 are a table, which has no kernels of its own"):
        compilation.study_kernels(compile_spec(parse_spec(text)), operators=operators)
