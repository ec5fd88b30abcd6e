"""The C programs: how they are cut, run, shared by processes, and replaced where they cannot be built."""

import os
import shutil
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorgraph.compiler import compile_spec
from tensorgraph.emit import c, write_package
from tensorgraph.model import load_package
from tensorgraph.scalar import Instruction, Opcode, Store
from tensorgraph.spec import parse_spec
from tests.helpers import counting_compiler, library_in, put, uses, with_threads

ROOT = Path(__file__).parents[1]
SPEC = "name: small\nbasis: {family: flexible, body_order: 4, max_rank: 2}\n"

CALL = """
import warnings, torch
warnings.simplefilter("always")
from generated import hiphop4
features = torch.randn(5, 16, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
programs = hiphop4.invariants.__globals__["PROGRAMS"]
expected = programs.plain.forward(features)
found = hiphop4.invariants(features)
hiphop4.invariants(features)
torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
from generated.hiphop4._runtime import native
print("native" if native.available(programs.source, "forward", torch.float64) else "pytorch")
"""


def call(**environment: str) -> subprocess.CompletedProcess:
    """Values of a package in a process of its own."""
    variables = {k: v for k, v in os.environ.items() if k not in ("CC", "TENSORGRAPH_CPU")} | environment
    return subprocess.run(
        [sys.executable, "-c", CALL], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120
    )


@given(st.integers(1, 400))
def test_parts_compute_what_the_whole_does(size):
    """An interpreter of parts and slots, over exact numbers."""
    line = compile_spec(parse_spec(SPEC)).instructions.backward
    parts, slots = c.cut(line, size)
    numbers = {
        (array.name, index): Fraction(3 * index + len(array.name), index + 2)
        for array in line.inputs
        for index in range(array.size)
    }
    kept: list[Fraction | None] = [None] * slots
    stored = {}
    for part in parts:
        values = {value: kept[slot] for value, slot in part.taken}
        stored |= executed(part.body, values, numbers)
        for value, slot in part.left:
            kept[slot] = values[value]
    assert stored == executed(line.body, {}, numbers)
    assert sum(
        item.opcode is not Opcode.LOAD for p in parts for item in p.body if isinstance(item, Instruction)
    ) == sum(item.opcode is not Opcode.LOAD for item in line.body if isinstance(item, Instruction))


def executed(body, values: dict, numbers: dict) -> dict:
    """What a body stores; ``values`` takes what it computes."""
    stored = {}
    for item in body:
        if isinstance(item, Store):
            stored[item.array, item.index] = 0 if item.target is None else values[item.target]
            continue
        a, b, third = (*[values[operand] for operand in item.operands], 0, 0, 0)[:3]
        values[item.target] = {
            Opcode.LOAD: lambda i=item: numbers[i.source.array, i.source.index],
            Opcode.CONSTANT: lambda i=item: i.constant,
            Opcode.MULTIPLY: lambda a=a, b=b: a * b,
            Opcode.SCALE: lambda a=a, i=item: i.constant * a,
            Opcode.ADD: lambda a=a, b=b: a + b,
            Opcode.SUBTRACT: lambda a=a, b=b: a - b,
            Opcode.MULTIPLY_ADD: lambda a=a, b=b, c=third: a + b * c,
            Opcode.MULTIPLY_SUBTRACT: lambda a=a, b=b, c=third: a - b * c,
        }[item.opcode]()
    return stored


def test_a_program_in_many_parts_compiles_and_agrees(tmp_path, monkeypatch):
    monkeypatch.setattr(c, "PART", 30)
    package = load_package(write_package(compile_spec(parse_spec(SPEC)).package, tmp_path))
    programs = sys.modules[f"{package.__name__}.invariants"].PROGRAMS
    native = sys.modules[f"{package.__name__}._runtime.native"]
    assert "double_backward_3(" in (tmp_path / "small" / "invariants_cpu.c").read_text()
    sizes = (package.architecture.N_COMPONENTS, package.architecture.N_INVARIANTS, package.architecture.N_COMPONENTS)
    inputs = [torch.randn(7, size, 21, dtype=torch.float64) for size in sizes]
    for count, name in enumerate(("forward", "backward", "double_backward"), 1):
        assert native.available(programs.source, name, torch.float64)
        found, expected = (getattr(p, name)(*inputs[:count]) for p in (programs, programs.plain))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_numbers_do_not_depend_on_the_threads():
    from generated import hiphop5

    features = torch.randn(501, 16, 40)
    results = with_threads((1, 2, 3), lambda: hiphop5.invariants(features))
    assert all(torch.equal(result, results[0]) for result in results)


def test_libraries_are_kept_for_the_next_process(tmp_path):
    compiler, log = counting_compiler(tmp_path)
    cache = tmp_path / "cache"
    for _ in range(2):
        done = call(CC=compiler, TENSORGRAPH_CACHE=str(cache))
        assert (done.stdout, done.stderr) == ("native\n", "")
        assert uses(log) == 1
    assert sorted(file.suffix for file in cache.iterdir()) == [".sha256", ".so"]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    put(library_in(cache), library_in(cache).read_bytes()[:4096])
    done = call(CC=compiler, TENSORGRAPH_CACHE=str(cache))
    assert (done.stdout, done.stderr) == ("native\n", "")
    assert uses(log) == 2


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    done = call(TENSORGRAPH_CACHE=str(cache))
    assert done.stdout == "native\n"
    assert done.stderr.count("RuntimeWarning") == 1
    assert f"{cache}: others can write to it); every process compiles its own" in done.stderr
    assert list(cache.iterdir()) == []


def test_without_openmp_or_native_code_less_will_do(tmp_path):
    """A compiler that knows neither flag: asked once, and not again by the next process."""
    compiler, log = counting_compiler(tmp_path, 'case "$*" in *=native*|*-fopenmp*) echo "what?" >&2; exit 1;; esac')
    for _ in range(2):
        done = call(CC=compiler, TENSORGRAPH_CACHE=str(tmp_path / "cache"))
        assert (done.stdout, done.stderr) == ("native\n", "")
        assert uses(log) == 5


def test_processes_that_start_together_compile_once(tmp_path):
    """On an empty folder: one builds, the others wait for it and load."""
    compiler, log = counting_compiler(tmp_path, "sleep 1")
    variables = os.environ | {"CC": compiler, "TENSORGRAPH_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", CALL]
    processes = [subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=120)[0] for process in processes] == [b"native\n"] * 3
    assert uses(log) == 1
    assert not list((tmp_path / "cache").glob("*.lock"))


REMOVED = """
import shutil, sys, warnings
warnings.simplefilter("error")
import torch
from tensorgraph.model import load_package
first = load_package(sys.argv[1])
shutil.rmtree(sys.argv[1])
from generated import hiphop4
features = torch.randn(5, 16, 19, dtype=torch.float64)
native = sys.modules[first.__name__ + "._runtime.native"]
programs = sys.modules[first.__name__ + ".invariants"].PROGRAMS
assert native.available(programs.source, "forward", torch.float64)
hiphop4.invariants(features)
"""


def test_a_package_outlives_the_folder_of_an_equal_one(tmp_path):
    """Whose operators it shares, since that one was there first."""
    copy = shutil.copytree(ROOT / "generated" / "hiphop4", tmp_path / "hiphop4")
    variables = os.environ | {"TENSORGRAPH_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", REMOVED, str(copy)], check=True, cwd=ROOT, env=variables, timeout=120)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/cc", "no C compiler /nowhere/cc on the path"),
        ("false", "false: exit status 1"),
        ("cc '", 'CC is "cc \'": No closing quotation'),
    ],
)
def test_without_a_compiler_pytorch_runs_and_says_so_once(tmp_path, compiler, reason):
    done = call(CC=compiler, TENSORGRAPH_CACHE=str(tmp_path))
    assert done.stdout == "pytorch\n"
    assert done.stderr.count("RuntimeWarning") == 1
    assert reason in done.stderr
    assert "plain PyTorch runs instead" in done.stderr


def test_the_environment_chooses():
    done = call(TENSORGRAPH_CPU="pytorch")
    assert (done.stdout, done.stderr) == ("pytorch\n", "")
    done = call(TENSORGRAPH_CPU="fortran")
    assert done.returncode != 0
    assert "TENSORGRAPH_CPU is 'fortran'; allowed: native, pytorch" in done.stderr


def test_wrong_shapes_never_reach_the_programs():
    from generated.hiphop4.invariants import PROGRAMS

    features, cotangent = torch.zeros(3, 16, 2), torch.zeros(3, 7, 2)
    with pytest.raises(ValueError, match=r"needs \[3, 7, 2\], not \[2, 7, 2\]"):
        PROGRAMS.backward(features, cotangent[:2])
    with pytest.raises(ValueError, match=r"needs \[3, 16, 2\], not \[3, 16, 1\]"):
        PROGRAMS.double_backward(features, cotangent, features[..., :1])
