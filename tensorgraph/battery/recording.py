"""A training step in the ways in which PyTorch records it: compiled, traced, exported, and reloaded from a file."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tensorgraph.battery.training import Problem, Results, Step, Values


def compiled(problem: Problem) -> Results:
    """By `torch.compile` of energies and forces, with their derivatives in its graphs where PyTorch can trace those.

    The backend is `aot_eager`, whose graphs of gradients are those that `inductor` would go on with, or, where
    derivatives are left out of graphs, `eager`: the other one refuses second derivatives then. Graphs that the process
    has compiled before are dropped, and made anew where they are needed.
    """
    graphs = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return made(graph, inputs)

    def step(displacements: Tensor) -> Values:
        return problem.values(displacements)

    with _compiler() as traces_derivatives:
        made = torch._dynamo.lookup_backend("aot_eager" if traces_derivatives else "eager")
        found = problem.results(torch.compile(step, backend=backend, dynamic=False))
    if not graphs:
        raise RuntimeError("torch.compile made no graph")
    return found


@contextmanager
def _compiler() -> Iterator[bool]:
    """PyTorch's compiler without graphs of others, whose number it limits; whether it traces derivatives."""
    import torch._dynamo  # takes seconds, which nothing else of the battery needs

    config: Any = torch._dynamo.config
    traces_derivatives = hasattr(config, "trace_autograd_ops")
    settings = {"suppress_errors": False} | ({"trace_autograd_ops": True} if traces_derivatives else {})
    torch._dynamo.reset()
    try:
        with config.patch(settings), _quiet():
            yield traces_derivatives
    finally:
        torch._dynamo.reset()


def traced(problem: Problem) -> Results:
    """By `make_fx` of energies and forces; its graph runs on other displacements than those it was made with."""
    from torch.fx.experimental.proxy_tensor import make_fx  # as slow as the compiler

    def step(displacements: Tensor) -> Values:  # not a method: its `self` would count as an argument
        return problem.values(displacements)

    with _quiet(), torch.enable_grad():
        graph: Step = make_fx(step, _allow_non_fake_inputs=True)(1.01 * problem.batch.displacements)
        return problem.results(graph)


class _Energies(torch.nn.Module):
    """What is exported: energies as a function of displacements."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model = problem.model
        self.inputs = problem.batch.inputs

    def forward(self, displacements: Tensor) -> tuple[Tensor, Tensor]:
        numbers, pairs, _, structure, n_structures, cutoff = self.inputs
        found = self.model(numbers, pairs, displacements, structure, n_structures, cutoff)
        return found.energy, found.energies


def export(problem: Problem) -> ExportedProgram:
    """By `torch.export`: the model's energies, with all but the displacements as constants."""
    with _quiet():
        return torch.export.export(_Energies(problem), (problem.batch.displacements,))


def exported(problem: Problem, program: ExportedProgram) -> Results:
    """What an exported program gives, with forces as derivatives outside of the graph."""
    return _of_exported(problem, program.module())


def reloaded(problem: Problem, program: ExportedProgram) -> Results:
    """The same of the program as it comes back from a file of our own, in a temporary folder."""
    with _quiet(), tempfile.TemporaryDirectory(prefix="tensorgraph-") as folder:
        file = Path(folder, "model.pt2")
        torch.export.save(program, file)
        return _of_exported(problem, torch.export.load(file).module())


def _of_exported(problem: Problem, energies: torch.nn.Module) -> Results:
    batch = problem.batch

    def step(displacements: Tensor) -> Values:
        energy, of_atoms = energies(displacements)
        (slope,) = torch.autograd.grad(energy.sum(), displacements, create_graph=True)
        central, neighbour = batch.pairs
        forces = slope.new_zeros((len(batch.numbers), 3)).index_add(0, central, slope).index_add(0, neighbour, -slope)
        outer = displacements.unsqueeze(2) * slope.unsqueeze(1)
        virial = slope.new_zeros((batch.n_structures, 3, 3))
        virial = virial.index_add(0, batch.structure[central], (outer + outer.transpose(1, 2)) / 2)
        return energy, of_atoms, forces, virial

    weights = {name.removeprefix("model."): weight for name, weight in energies.named_parameters()}
    return problem.results(step, weights)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns of its own code and of what it leaves out of a graph; whether that changes results is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
