"""float32 against float64: what a simulation in single precision loses."""

from __future__ import annotations

import torch

from tensorgraph.battery.bounds import machinery_bound
from tensorgraph.battery.check import Check, worst
from tensorgraph.battery.subject import Subject
from tensorgraph.battery.training import VALUES, deviations, problem

SIZES = (24, 1, 2, 9)
"""Atoms of the structures."""


def check_precision(subject: Subject) -> tuple[Check, Check]:
    """The errors of energies and of forces and virials in float32, with the weights and distances that float32 has:
    relative to the interaction of an atom, and to the largest component of forces and of virials.

    Weights and displacements are rounded first, so that both precisions are given the same ones. In float32 the model
    runs on its device, in float64 on the CPU. It has to be a torch module that can be copied.
    """
    single = problem(subject, SIZES).converted(subject.device, torch.float32)
    double = single.exact()
    expected, interaction = double.results(), double.interaction()
    found = deviations(single.results(), expected, interaction)
    energies = {name: found[name] for name in VALUES if name.startswith("energ")}
    slopes = {name: found[name] for name in VALUES if name not in energies}
    return (
        worst(name := "float32: energies", energies, machinery_bound(name, torch.float32)),
        worst(name := "float32: forces and virials", slopes, machinery_bound(name, torch.float32)),
    )
