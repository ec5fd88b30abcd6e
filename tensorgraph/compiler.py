"""The driver: a spec becomes a package, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tensorgraph.basis import Basis, derive
from tensorgraph.contractions import ContractionProgram, contraction_program
from tensorgraph.emit import PackageText, emit_package
from tensorgraph.network import Layer
from tensorgraph.network.hiphop import INTERACTIONS, hiphop
from tensorgraph.network.orders import LayerPlan, contracted_in_order, plan_layers
from tensorgraph.network.pairs import lower_sensitivities, lower_tensor_components
from tensorgraph.scalar import (
    Derivatives,
    ScalarProgram,
    StraightLine,
    lower_invariants,
    scheduled,
)
from tensorgraph.spec import BasisSpec, NetworkSpec, Spec

Tell = Callable[[str], None]
"""A listener to progress."""


@dataclass(frozen=True)
class Compilation:
    """Every stage of one build, each a value with a text form; together they print as the basis and its program."""

    spec: Spec
    basis: Basis
    contractions: ContractionProgram
    scalars: Derivatives[ScalarProgram]
    instructions: Derivatives[StraightLine]
    tensors: Derivatives[StraightLine]
    sensitivities: Derivatives[StraightLine]
    layers: tuple[LayerPlan, ...]
    network: Layer | None
    package: PackageText

    def __str__(self) -> str:
        return f"{self.basis}\n\n{self.contractions}"


def compile_spec(spec: Spec, tell: Tell = lambda _: None) -> Compilation:
    """Compiles a spec; nothing is written to disk and torch is not imported. ``tell`` is told what goes on."""
    basis = derive_basis(spec.basis, tell)  # Spec → Basis
    tell("programs")
    contractions = contraction_program(basis.graphs, basis.layout)  # Basis → ContractionProgram
    scalars = lower_invariants(contractions)  # ContractionProgram → ScalarProgram, three of them
    instructions = Derivatives(*map(scheduled, scalars))  # ScalarProgram → StraightLine
    tensors = Derivatives(*map(scheduled, lower_tensor_components(basis.max_rank)))
    sensitivities = Derivatives(*map(scheduled, lower_sensitivities()))
    layers = plan_layers(spec)  # Spec → LayerPlan, one for each interaction
    network = _network(spec, scalars, layers)  # Spec, ScalarProgram, LayerPlan → Layer
    # everything → PackageText
    package = emit_package(spec, basis, contractions, instructions, tensors, sensitivities, network)
    return Compilation(
        spec, basis, contractions, scalars, instructions, tensors, sensitivities, layers, network, package
    )


def with_network(compilation: Compilation, network: NetworkSpec | None) -> Compilation:
    """The same basis with another network, or none; the basis and its programs are not made again."""
    spec = compilation.spec.model_copy(update={"network": network})
    layers = plan_layers(spec)
    printed = _network(spec, compilation.scalars, layers)
    c = compilation
    package = emit_package(spec, c.basis, c.contractions, c.instructions, c.tensors, c.sensitivities, printed)
    return replace(compilation, spec=spec, layers=layers, network=printed, package=package)


def _network(spec: Spec, scalars: Derivatives[ScalarProgram], layers: Sequence[LayerPlan]) -> Layer | None:
    """The network with its sums over neighbours in the chosen orders; None for the invariants alone."""
    if spec.network is None:
        return None
    orders = {INTERACTIONS[min(k, 1)]: plan.chosen.order for k, plan in enumerate(layers) if plan.chosen.order}
    return contracted_in_order(hiphop(spec.network, spec.basis.max_rank, scalars), orders)


def derive_basis(basis: BasisSpec, tell: Tell = lambda _: None) -> Basis:
    """The basis that a spec asks for."""
    return derive(basis.family, basis.body_order, basis.max_rank, tell=tell)
