"""The driver: a spec becomes a package, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorgraph.algebra import Layout
from tensorgraph.basis import Basis, Degree, Rule, derive
from tensorgraph.basis.products import dimension_of, multidegrees
from tensorgraph.contractions import ContractionProgram
from tensorgraph.emit import PackageText, emit_package
from tensorgraph.emit.model import own_programs
from tensorgraph.graphs import Kind, multigraphs_of_degree_sequence
from tensorgraph.network import Layer
from tensorgraph.network.bases import BasisProgram
from tensorgraph.network.build import potential
from tensorgraph.network.hiphop import INTERACTIONS, hiphop
from tensorgraph.network.orders import LayerPlan, contracted_in_order, plan_layers
from tensorgraph.network.pairs import lower_tensor_components
from tensorgraph.network.radial import lower_sensitivities
from tensorgraph.scalar import (
    Derivatives,
    ScalarProgram,
    StraightLine,
    Table,
    check_products,
    products_of,
    scheduled,
)
from tensorgraph.spec import AnySpec, BasisSpec, GeneralSpec, LayerSpec, NetworkSpec, Spec

Tell = Callable[[str], None]
"""A listener to progress."""


@dataclass(frozen=True)
class Compilation:
    """Every stage of one build, each a value with a text form; together they print as the basis and its program.

    Attributes:
        spec: what was asked for.
        bases: the basis of the first layer, which is that of the package, and those of later layers that differ.
        programs: what is printed beside them, by the stem of the files.
        layers: in which orders the layers of the short form can be contracted.
        network: None for the invariants alone.
        package: the files.
    """

    spec: AnySpec
    bases: tuple[BasisProgram, ...]
    programs: Mapping[str, Derivatives[StraightLine]]
    layers: tuple[LayerPlan, ...]
    network: Layer | None
    package: PackageText

    @property
    def basis(self) -> Basis:
        """The basis of the package."""
        return self.bases[0].basis

    @property
    def contractions(self) -> ContractionProgram:
        """Its contractions."""
        return self.bases[0].contractions

    @property
    def scalars(self) -> Derivatives[ScalarProgram | Table]:
        """Its scalar programs."""
        return self.bases[0].scalars

    @property
    def instructions(self) -> Derivatives[StraightLine | Table]:
        """What is printed of them."""
        return self.bases[0].instructions

    def __str__(self) -> str:
        return f"{self.basis}\n\n{self.contractions}"


def compile_spec(spec: AnySpec, tell: Tell = lambda _: None) -> Compilation:
    """Compiles a spec; nothing is written to disk and torch is not imported. ``tell`` is told what goes on."""
    if isinstance(spec, GeneralSpec):
        return _general(spec, tell)
    basis = derive_basis(spec.basis, tell)  # Spec → Basis
    tell("programs")
    return _short(spec, BasisProgram.of("invariants", basis))  # Basis → programs


def with_network(compilation: Compilation, network: NetworkSpec | None) -> Compilation:
    """The same basis with another network, or none, in the short form; the basis is not derived again."""
    assert isinstance(compilation.spec, Spec), "only the short form has a network apart from its basis"
    return _short(compilation.spec.model_copy(update={"network": network}), compilation.bases[0])


def _short(spec: Spec, basis: BasisProgram) -> Compilation:
    """The short form: HIP-HOP-NN, its sums over neighbours in the orders that are cheapest."""
    layers = plan_layers(spec)  # Spec → LayerPlan, one for each interaction
    network = None
    if spec.network is not None:
        orders = {INTERACTIONS[min(k, 1)]: plan.chosen.order for k, plan in enumerate(layers) if plan.chosen.order}
        network = contracted_in_order(hiphop(spec.network, spec.basis.max_rank, basis.scalars), orders)
    return _packaged(spec, (basis,), basis.basis.max_rank, layers, network)


def _general(spec: GeneralSpec, tell: Tell) -> Compilation:
    """The general form: a basis for each layer, those that are equal once."""
    bases: dict[Basis, BasisProgram] = {}
    used = []
    for layer, basis in zip(spec.layers, _layer_bases(spec, tell), strict=True):
        tell("programs")
        if basis not in bases:
            stem = f"invariants_{len(bases) + 1}" if bases else "invariants"
            bases[basis] = BasisProgram.of(stem, basis)
        used += [bases[basis]] * layer.repeat
    network = potential(spec, used)  # GeneralSpec, bases → Layer
    max_rank = max(layer.density.max_rank for layer in spec.layers)
    return _packaged(spec, tuple(bases.values()), max_rank, (), network)


def _layer_bases(spec: GeneralSpec, tell: Tell) -> list[Basis]:
    """Of every layer; what several layers ask for is derived once."""
    layers = {(layer.basis, layer.density.max_rank): layer for layer in spec.layers}
    derived = {key: _layer_basis(spec, layer, tell) for key, layer in layers.items()}
    return [derived[layer.basis, layer.density.max_rank] for layer in spec.layers]


def _layer_basis(spec: GeneralSpec, layer: LayerSpec, tell: Tell) -> Basis:
    wanted = layer.basis
    outputs = tuple(Kind(rank, role="probe") if rank else None for rank in wanted.outputs)
    degree, limit = None, wanted.degree
    if limit is not None:
        exact = limit.exactly is not None
        degree = Degree(limit.bound, limit.constant, limit.per_channel, limit.per_rank, exact)
    colours = spec.radial.channels if wanted.across == "channels" else 1
    order, rank, dimension = wanted.body_order, layer.density.max_rank, layer.density.dimension
    if dimension == 4:
        _check_table(Rule(wanted.family, order - 1, Layout.full(rank, dimension=4), degree=degree))
    return derive(
        wanted.family, order, rank, tell=tell, colours=colours, dimension=dimension, outputs=outputs, degree=degree
    )


def _check_table(rule: Rule) -> None:
    """Raises BudgetError, before the basis is derived, where even the simplest graphs make too long a table."""
    if rule.preset.candidates != "all":
        return
    check_products(number for kinds in multidegrees(rule) for number in _least_products(rule, kinds))


def _least_products(rule: Rule, kinds: tuple[Kind, ...]) -> list[int]:
    """Of so many graphs of a multidegree as the basis keeps, those that are the fewest products of components."""
    numbers = sorted(map(products_of, multigraphs_of_degree_sequence(kinds)))
    kept = len(numbers) if rule.preset.superfluous == "nothing" or len(numbers) < 2 else dimension_of(kinds, 4)
    return numbers[:kept]


def _packaged(
    spec: AnySpec,
    bases: tuple[BasisProgram, ...],
    max_rank: int,
    layers: Sequence[LayerPlan],
    network: Layer | None,
) -> Compilation:
    """Everything → PackageText."""
    stems = {basis.stem for basis in bases}
    used = own_programs(network) if network else {}
    lowered = {name: statement.program.derivatives for name, statement in used.items() if name not in stems}
    if "tensors" not in lowered:
        lowered["tensors"] = lower_tensor_components(max_rank)
    if "sensitivities" in lowered:
        lowered["sensitivities"] = lower_sensitivities()  # of 1/μ and σ side by side: one array of functions
    programs = {stem: _scheduled(program) for stem, program in lowered.items()}
    package = emit_package(spec, bases, programs, network)
    return Compilation(spec, bases, programs, tuple(layers), network, package)


def _scheduled(programs: Derivatives[ScalarProgram | Table]) -> Derivatives[StraightLine]:
    """Programs of everything but bases are no tables."""
    return Derivatives(*(scheduled(program) for program in programs if isinstance(program, ScalarProgram)))


def derive_basis(basis: BasisSpec, tell: Tell = lambda _: None) -> Basis:
    """The basis that a spec in the short form asks for."""
    return derive(basis.family, basis.body_order, basis.max_rank, tell=tell)


def derive_bases(spec: AnySpec, tell: Tell = lambda _: None) -> tuple[Basis, ...]:
    """The bases of a spec: one in the short form; in the general form those of the layers, equal ones once."""
    if isinstance(spec, Spec):
        return (derive_basis(spec.basis, tell),)
    return tuple(dict.fromkeys(_layer_bases(spec, tell)))
