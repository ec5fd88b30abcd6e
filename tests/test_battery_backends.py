"""Agreement of backends, precision and determinism: right models pass, and each check fails on one broken for it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tensorgraph.battery import Check, Subject, backends
from tensorgraph.battery.backends import check_backends, check_programs, check_recorded
from tensorgraph.battery.determinism import check_determinism
from tensorgraph.battery.precision import check_precision
from tensorgraph.battery.switching import runtime_modules
from tensorgraph.model.loading import load_package
from tests.helpers import GENERATED, package, small_model

triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed on this platform"
)
PROGRAMS = ("backend: programs in C", "backend: Triton kernels, interpreted")
RECORDED = (
    "backend: torch.compile",
    "backend: make_fx",
    "backend: torch.export",
    "backend: exported, saved and reloaded",
)
DETERMINISM = (
    "determinism: repeats",
    "determinism: programs, 1 to 3 threads",
    "determinism: model, 1 to 3 threads",
)


class Energies(NamedTuple):
    energy: Tensor
    energies: Tensor


class Forces(NamedTuple):
    energy: Tensor
    energies: Tensor
    forces: Tensor
    virial: Tensor


class Springs(torch.nn.Module):
    """A model that compiles fast: springs between neighbours, whose two weights the methods below may treat wrongly."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.stiffness = torch.nn.Parameter(torch.tensor(1.5, dtype=dtype))
        self.length = torch.nn.Parameter(torch.tensor(0.9, dtype=dtype))
        self.register_buffer("species", torch.tensor([1, 6, 7, 8]))

    @property
    def dtype(self) -> torch.dtype:
        return self.stiffness.dtype

    def of_pairs(self, displacements: Tensor) -> Tensor:
        stretch = torch.linalg.vector_norm(displacements, dim=1) - self.length
        return self.stiffness * self.square(stretch) * (2 - stretch)

    def square(self, stretch: Tensor) -> Tensor:
        return stretch.square()

    def forward(self, numbers, pairs, displacements, structure, n_structures, cutoff=None):
        energies = displacements.new_zeros(len(numbers)).index_add(0, pairs[0], self.of_pairs(displacements))
        energy = displacements.new_zeros(n_structures).index_add(0, structure, energies)
        return Energies(energy, energies)

    def energy_and_forces(
        self, numbers, pairs, displacements, structure, n_structures, cutoff=None, *, create_graph=False
    ):
        with torch.enable_grad():
            if not displacements.requires_grad:
                displacements = displacements.detach().requires_grad_()
            found = self(numbers, pairs, displacements, structure, n_structures)
            (slope,) = torch.autograd.grad(found.energy.sum(), displacements, create_graph=create_graph)
        zeros = slope.new_zeros((len(numbers), 3))
        forces = zeros.index_add(0, pairs[0], slope).index_add(0, pairs[1], -slope)
        outer = displacements.unsqueeze(2) * slope.unsqueeze(1)
        virial = slope.new_zeros((n_structures, 3, 3)).index_add(0, structure[pairs[0]], outer)
        return Forces(found.energy, found.energies, forces, virial)


class Square(torch.autograd.Function):
    """What PyTorch's compiler takes for a function that can be differentiated once."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(ctx, grad):
        (values,) = ctx.saved_tensors
        return 2 * values * grad


class OnceDifferentiable(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        return Square.apply(stretch)


class CompiledWrongly(Springs):
    """The right values, but a wrong gradient of a weight."""

    def square(self, stretch: Tensor) -> Tensor:
        wrong = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        return stretch.square() if not wrong else (stretch + self.length - self.length.detach()).square()


class ExportedWrongly(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        wrong = torch.compiler.is_exporting()
        return stretch.square() if not wrong else (stretch + self.length - self.length.detach()).square()


class TracedWrongly(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        wrong = not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0
        return stretch.square() if not wrong else (stretch + self.length - self.length.detach()).square()


class Untraceable(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        return stretch.square() if float(stretch.detach().sum()) < 1e9 else stretch


def subject(model: Any = None, name: str = "hipnn") -> Subject:
    return Subject(package(name), Springs() if model is None else model)


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def failed(checks: tuple[Check, ...]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def assert_passed(checks: tuple[Check, ...], *names: str) -> None:
    """All of these, and none skipped but what needs triton."""
    assert not failed(checks), checks
    assert [check.name for check in checks if not check.skipped or "Triton" in check.name] == [*names]


@pytest.fixture
def altered(monkeypatch):
    """Changes the last result of a program in C, in every copy of the runtime: operators belong to the first one."""

    def alter(module: ModuleType, program: str, change: Callable[[Tensor], Any]) -> None:
        for native in runtime_modules("native"):

            def changed(source, name, sizes, rows, arrays, run=native.run, **macros):
                done = run(source, name, sizes, rows, arrays, **macros)
                if done and name == program:
                    change(arrays[-1])
                return done

            monkeypatch.setattr(native, "run", changed)

    return alter


@pytest.fixture
def edited(tmp_path):
    """A copy of a package with another line in one of its files."""

    def edit(name: str, file: str, line: str, changed: str) -> ModuleType:
        folder = tmp_path / name
        shutil.copytree(GENERATED / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        text = (folder / file).read_text(encoding="utf-8")
        assert line in text
        (folder / file).write_text(text.replace(line, changed), encoding="utf-8")
        return load_package(folder)

    return edit


@triton
def test_a_committed_package_passes():
    module = package("hipnn")
    model = module.Model(seed=0).float().requires_grad_(False)
    before = torch._dynamo.config.get_config_copy()
    assert_passed(check_backends(Subject(module, model)), "backend: plain PyTorch", *PROGRAMS, *RECORDED)
    # All is as it was.
    assert model.validate
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    assert torch._dynamo.config.get_config_copy() == before
    assert all(native.run.__module__ == native.__name__ for native in runtime_modules("native"))


@triton
def test_programs_of_a_small_model_agree():
    assert_passed(check_programs(subject(small_model(package("hiphop4")), "hiphop4")), *PROGRAMS)


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_other_models_can_be_checked():
    """Programs are skipped where a model runs none."""
    checks = check_programs(subject())
    assert all(check.skipped and "runs no program" in check.where for check in checks)
    assert_passed(check_recorded(subject()), *RECORDED)


@pytest.mark.usefixtures("without_triton")
@pytest.mark.parametrize(("program", "where"), [("environment", ""), ("double_backward", "gradient of")])
def test_other_programs_in_c_are_found(program, where, altered):
    """By 1e-6, in their values or in second derivatives alone, which leave energies and forces as they are."""
    given = subject(small_model(package("hiphop4")), "hiphop4")
    altered(given.package, program, lambda result: result.mul_(1 + 1e-6))
    found = by_name(check_programs(given))[PROGRAMS[0]]
    assert not found.passed
    assert 1e-9 < found.measured < 1e-5
    assert found.where.startswith(where)


@pytest.mark.usefixtures("without_triton")
def test_where_no_program_in_c_runs_its_check_is_skipped(monkeypatch):
    given = subject(small_model(package("hiphop4")), "hiphop4")
    for native in runtime_modules("native"):
        monkeypatch.setattr(native, "run", lambda *_, **macros: False)
    found = by_name(check_programs(given))[PROGRAMS[0]]
    assert not found.passed  # there is a compiler: one program that is not used may be one that was found wrong
    assert "not compiled" in found.where
    monkeypatch.setenv("TENSORGRAPH_CPU", "pytorch")
    found = by_name(check_programs(given))[PROGRAMS[0]]
    assert found.skipped
    assert "TENSORGRAPH_CPU=pytorch" in found.where


KERNELS = {
    "_runtime/pairs_triton.py": ("totals[k] + factor", "totals[k] + 1.000001 * factor", ""),
    "sensitivities_triton.py": ("def double_backward(", "def not_there(", "AttributeError"),
}


@triton
@pytest.mark.parametrize("file", KERNELS)
def test_other_triton_kernels_are_found(file, edited):
    """A wrong coefficient, and kernels that cannot run."""
    line, changed, where = KERNELS[file]
    module = edited("hiphop4", file, line, changed)
    found = by_name(check_programs(Subject(module, small_model(module))))
    assert found[PROGRAMS[0]].passed
    assert not found[PROGRAMS[1]].passed
    assert where in found[PROGRAMS[1]].where


@triton
def test_an_interpreter_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(backends, "SECONDS", 0.1)
    found = by_name(check_programs(subject(small_model(package("hiphop4")), "hiphop4")))[PROGRAMS[1]]
    assert found.skipped
    assert "not done within 0.1 s" in found.where


@pytest.mark.usefixtures("without_triton")
def test_without_triton_its_check_is_skipped():
    found = by_name(check_programs(subject(small_model(package("hiphop4")), "hiphop4")))["backend: Triton kernels"]
    assert found.skipped
    assert "triton is not installed" in found.where


BROKEN = {
    OnceDifferentiable: {RECORDED[0]},
    CompiledWrongly: {RECORDED[0]},
    TracedWrongly: {RECORDED[1]},
    ExportedWrongly: {RECORDED[2], RECORDED[3]},
    Untraceable: set(RECORDED),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_gradients_that_recording_loses_are_found(broken):
    """Values are right in each case; what is wrong, or missing, are gradients with respect to weights."""
    checks = check_recorded(subject(broken()))
    assert failed(checks) == BROKEN[broken], checks


def test_a_file_with_other_weights_is_found(monkeypatch):
    load = torch.export.load

    def changed(file):
        program = load(file)
        with torch.no_grad():
            program.state_dict["model.stiffness"].mul_(1 + 1e-6)
        return program

    monkeypatch.setattr(torch.export, "load", changed)
    assert failed(check_recorded(subject())) == {RECORDED[3]}


def test_a_compiler_that_makes_no_graph_is_found(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    found = by_name(check_recorded(subject()))[RECORDED[0]]
    assert not found.passed
    assert "made no graph" in found.where


class Overflowing(Springs):
    """Right where it does not: beyond 1e38 in float32."""

    def square(self, stretch: Tensor) -> Tensor:
        return (1e25 * stretch).square() / 1e50


class Cancelling(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        return (stretch.square() + 1e4) - 1e4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_precision(dtype):
    assert not failed(check_precision(subject(Springs(dtype))))
    assert not failed(check_precision(subject(small_model(package("hiphop5")).to(dtype), "hiphop5")))
    names = {"float32: energies", "float32: forces and virials"}
    assert failed(check_precision(subject(Overflowing(dtype)))) == names
    assert failed(check_precision(subject(Cancelling(dtype)))) == {"float32: energies"}


class Noisy(Springs):
    """Twice is not the same."""

    def square(self, stretch: Tensor) -> Tensor:
        return stretch.square() * (1 + 1e-9 * torch.rand((), dtype=torch.float64))


class NoisyGradients(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        shift = self.length - self.length.detach()
        return (stretch + 1e-9 * torch.rand(()) * shift).square()


class Threaded(Springs):
    def square(self, stretch: Tensor) -> Tensor:
        return stretch.square() * (1 + 1e-9 * torch.get_num_threads())


def test_right_models_are_deterministic():
    before = torch.get_num_threads()
    assert_passed(check_determinism(subject(small_model(package("hiphop4")), "hiphop4")), *DETERMINISM)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (Noisy, {DETERMINISM[0], DETERMINISM[2]}),
        (NoisyGradients, {DETERMINISM[0], DETERMINISM[2]}),
        (Threaded, {DETERMINISM[2]}),
    ],
)
def test_models_that_are_not_deterministic_are_found(broken, names):
    assert failed(check_determinism(subject(broken()))) == names


def test_programs_that_depend_on_threads_are_found(altered):
    """Even within the rounding that the whole model is allowed."""
    given = subject(small_model(package("hiphop4")), "hiphop4")
    altered(given.package, "environment", lambda result: result.mul_(1 + 2**-50 * torch.get_num_threads()))
    checks = check_determinism(given)
    assert failed(checks) == {DETERMINISM[1]}
    assert by_name(checks)[DETERMINISM[1]].where == "environment of pairs"
