"""The files of a generated package: printed programs, templates, manifest and spec beside the runtime.

Every package has the whole runtime, one without a network too: its digest then tells one runtime from another, and
`tensorgraph refresh` replaces one folder by another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import count
from math import isqrt
from typing import Any

from tensorgraph.algebra import Layout, components
from tensorgraph.algebra.spinors import spinor_components
from tensorgraph.algebra.tensors import AXES, component_name
from tensorgraph.basis import Basis, Invariant
from tensorgraph.contractions import ContractionProgram, Output
from tensorgraph.emit.model import definitions, print_model
from tensorgraph.emit.printing import Commentary
from tensorgraph.emit.runtime import manifest_text, runtime_entry, runtime_files
from tensorgraph.emit.targets import TARGETS
from tensorgraph.emit.writing import PackageText
from tensorgraph.network import Layer
from tensorgraph.network.bases import BasisProgram
from tensorgraph.scalar import Derivatives, StraightLine, Table
from tensorgraph.spec import AnySpec, GeneralSpec, NetworkSpec
from tensorgraph.spec.elements import ATOMIC_NUMBERS
from tensorgraph.version import __version__

INVARIANT_EXPORTS = ("invariants", "tensor_components")
NETWORK_EXPORTS = ("EnergyAndForces", "Model", "Prediction")


SENSITIVITIES = Commentary(
    "Sensitivities to distances and their derivatives",
    "exp(−½ σ² (u − κ)²) · c for rows of pairs (radial: u = 1/r, the cutoff function c) and columns of functions\n"
    "(parameters: κ = 1/μ, σ).",
    {
        "sensitivities": ["s"],
        "grad_radial": ["with respect to u", "with respect to c"],
        "grad_parameters": ["with respect to κ", "with respect to σ"],
        "grad_grad_sensitivities": ["with respect to the cotangent of s"],
    },
)


MODEL_HEAD = '''\
"""HIP-HOP-NN as PyTorch modules: above every line the equation that it computes.

After Allen, Shinkle, Bujack and Lubbers, arXiv:2503.23515 (interactions), Lubbers, Smith and Barros, J. Chem. Phys.
148, 241715, 2018 (sensitivities, blocks, energy heads) and Chigaev et al., J. Chem. Phys. 158, 184108, 2023 (tensors).
Pairs p are of a central atom i and its neighbour j; T are the tensors of directions, [r̂…r̂]_0.
"""
'''

GENERAL_HEAD = '''\
"""A potential as PyTorch modules: above every line the equation that it computes.

Pairs p are of a central atom i and its neighbour j; z0 is one for the species of an atom. Units: Å and eV.
T are the tensors of {directions}.
"""
'''

DIRECTIONS = {3: "directions, [r̂…r̂]_0", 4: "points of the 3-sphere, [u…u]_0"}
"""What tensors are of, by dimension."""

MODEL_IMPORTS = {
    "pad": "from torch.nn.functional import pad",
    "silu": "from torch.nn.functional import silu",
    "softplus": "from torch.nn.functional import softplus",
    "architecture": "\nfrom . import architecture",
    "Geometry": "from ._runtime.geometry import Geometry",
    "Fixed, Weights, linear, normal, normalised, uniform": "from ._runtime.modules import {}",
    "moments": "from ._runtime.moments import moments",
    "environment": "from ._runtime.pairs import environment",
    "Operand, Pointwise": "from ._runtime.pointwise import {}",
    "Programs": "from ._runtime.programs import Programs",
    "Potential": "from ._runtime.potential import Potential",
    "Sensitivities": "from ._runtime.sensitivities import Sensitivities",
    "invariants": "from .invariants import invariants",
    "tensor_components": "from .tensors import tensor_components",
}
"""What a network may use of other modules, and how it is imported."""


def emit_package(
    spec: AnySpec,
    bases: Sequence[BasisProgram],
    programs: Mapping[str, Derivatives[StraightLine]],
    network: Layer | None,
) -> PackageText:
    """The package of a spec, as text; equal specs give equal bytes.

    ``bases`` are those of the layers, the package's own first; ``programs`` what is printed beside them, by stem.
    """
    printed, data = _templates(bases[0]), {}
    for one in bases:
        if isinstance(one.instructions.forward, Table):
            data[f"{one.stem}.json"] = one.instructions.forward.to_json()
        else:
            printed |= _printed(one.stem, one.instructions, _invariants_commentary(one.basis, one.contractions))
    for stem, program in programs.items():
        printed |= _printed(stem, program, _commentary(stem, program))
    if network is not None:
        printed["model.py"] = _model_module(spec, network, bases[0].basis)
    max_rank = max(one.basis.max_rank for one in bases)
    printed["architecture.py"] = _architecture_module(spec, bases[0], max_rank)
    printed["__init__.py"] = _init_module(spec, bases[0].basis, network)
    files = {
        name: _header(spec, "//" if name.endswith(".c") else "#") + text for name, text in printed.items()
    } | runtime_files()
    files |= data
    files["spec.yaml"] = spec.to_yaml()
    files["manifest.json"] = _manifest(spec, bases, sorted([*files, "manifest.json"]))
    return PackageText(spec.name, tuple(sorted(files.items())))


def _header(spec: AnySpec, comment: str) -> str:
    return (
        f"{comment} {spec.name}: generated by tensorgraph {__version__} from the spec with digest\n"
        f"{comment} {spec.digest}.\n"
        f"{comment} Do not edit: change the spec and run `{regeneration_command(spec)}` beside this folder.\n"
    )


def regeneration_command(spec: AnySpec) -> str:
    """What rebuilds a package in place, in the folder that holds it."""
    return f"tensorgraph build {spec.name}/spec.yaml --out ."


def _templates(basis: BasisProgram) -> dict[str, str]:
    """The modules of the invariants and of the tensors, by file."""
    invariants = _template("invariants.py")
    if not isinstance(basis.instructions.forward, Table):
        return {"invariants.py": invariants, "tensors.py": _template("tensors.py")}
    invariants = invariants.replace("_runtime.programs import", "_runtime.tables import Tables as")
    invariants = invariants.replace("_runtime/programs.py", "_runtime/tables.py")
    return {"invariants.py": invariants, "tensors.py": _template("spinor_tensors.py")}


def _template(name: str) -> str:
    """A file that reads the constants of its package; kept beside this module."""
    return resources.files("tensorgraph.emit").joinpath("templates", name).read_text(encoding="utf-8")


def _printed(stem: str, programs: Derivatives[StraightLine | Table], commentary: Commentary) -> dict[str, str]:
    """Programs for every target, by file."""
    lines = Derivatives(*(line for line in programs if isinstance(line, StraightLine)))
    return {f"{stem}{ending}": printed(lines, commentary) for ending, printed in TARGETS.items()}


def _invariants_commentary(basis: Basis, contractions: ContractionProgram) -> Commentary:
    """The invariants with their graphs, and the contraction program that the arithmetic spells out."""
    outputs = dict(zip((i.name for i in basis.invariants), contractions.outputs, strict=True))
    lines = ["Invariants (name, value, graph, einsum):"]
    for invariant in basis.invariants:
        value = contractions.describe_output(outputs[invariant.name])
        lines.append(f"    {invariant.name:8} {value:4} {invariant.graph.formula}    {invariant.graph.einsum}")
    if contractions.steps:
        lines += ["", "Contractions, shared by all invariants:"]
        lines += ["    " + line for line in str(contractions).splitlines()[:-1]]
    names = [
        name for i, output in zip(basis.invariants, contractions.outputs, strict=True) for name in _named(i, output)
    ]
    labels = {
        "invariants": [f"{name} = {formula}" for name, formula in names],
        "grad_features": [f"with respect to {name}" for name in basis.layout.names],
        "grad_grad_invariants": [f"with respect to the cotangent of {name}" for name, _ in names],
    }
    return Commentary("The invariants and their derivatives", "\n".join(lines), labels)


def _named(invariant: Invariant, output: Output) -> list[tuple[str, str]]:
    """Name and formula of each element of an output: one, or the components of its rank."""
    if not output.rank:
        return [(invariant.name, invariant.graph.formula)]
    elements = map(component_name, components(output.rank))
    return [(f"{invariant.name}.{element}", invariant.graph.formula) for element in elements]


def _commentary(stem: str, programs: Derivatives[StraightLine]) -> Commentary:
    """What a reader of printed programs is told: of tensors and sensitivities by name, of others element by element."""
    if stem == "sensitivities":
        return SENSITIVITIES
    labels = {array.name: [f"element {k}" for k in range(array.size)] for line in programs for array in line.outputs}
    if stem == "tensors" and programs.forward.inputs[0].size == 4:
        return _spinor_commentary(programs.forward.outputs[0].size)
    if stem == "tensors":
        names = list(Layout.full(isqrt(programs.forward.outputs[0].size) - 1).names)
        labels = {
            "components": names,
            "grad_unit_vectors": [f"with respect to {axis}" for axis in "xyz"],
            "grad_grad_components": [f"with respect to the cotangent of {name}" for name in names],
        }
        ranks = f"ranks 0 to {isqrt(len(names)) - 1}"
        notes = f"Components of [r̂…r̂]_0, the traceless part of the powers of a direction, of {ranks}."
        return Commentary("Symmetric traceless tensors of directions and their derivatives", notes, labels)
    subject, notes = OTHERS[stem.split("_")[0]]
    return Commentary(subject, notes, labels)


def _spinor_commentary(size: int) -> Commentary:
    """Of tensors in four dimensions."""
    ranks = next(rank for rank in count(1) if Layout.full(rank, dimension=4).size > size)
    names = [
        f"{'Im' if imaginary else 'Re'} e{n}_{a}{b}" for n in range(ranks) for a, b, imaginary in spinor_components(n)
    ]
    labels = {
        "components": names,
        "grad_points": [f"with respect to {axis}" for axis in AXES[4]],
        "grad_grad_components": [f"with respect to the cotangent of {name}" for name in names],
    }
    notes = (
        f"Components of [u…u]_0, the traceless part of the powers of a point of the 3-sphere, ranks 0 to {ranks - 1}:\n"
        "e_n is the representation of the unit quaternion u on polynomials of degree n in two variables."
    )
    return Commentary("Symmetric traceless tensors in four dimensions and their derivatives", notes, labels)


OTHERS = {
    "hypersphere": (
        "Points of the 3-sphere from displacements, SNAP's switching function, and their derivatives",
        "(cos θ, sin θ r̂) and the function, which is exactly zero beyond the cutoff, from a displacement in Å.",
    ),
    "radial": (
        "Radial functions of a distance and their derivatives",
        "All functions of one pair, from its distance in Å; exactly zero beyond the cutoff.",
    ),
    "repulsion": (
        "The repulsion of nuclei of Ziegler, Biersack and Littmark, and its derivatives",
        "Energy of a pair in eV, from its distance in Å, the two atomic numbers, the sums of Z^0.23 and of the radii;\n"
        "exactly zero beyond the sum of the radii.",
    ),
    "messages": (
        "Messages of pairs and their derivatives",
        "Couplings of the tensors of a direction with a neighbour's features, each times its radial weight, summed\n"
        "over all couplings to the same rank.",
    ),
}
"""Subject and notes of other programs, by the first word of their stem."""


def _model_module(spec: AnySpec, network: Layer, basis: Basis) -> str:
    """The network as PyTorch modules, below what they import."""
    attributes = {
        "NAME": "architecture.NAME",
        "SPEC_DIGEST": "architecture.SPEC_DIGEST",
        "SPECIES": "architecture.SPECIES",
        "CUTOFF": "architecture.CUTOFF",
        "BASIS": json.dumps(f"{len(basis)} invariants of ranks up to {basis.max_rank}"),
    }
    if any(child.path == "repulsion" for child in network.children):
        attributes["FIXED_TERMS"] = "1"
    text, made = print_model(network, attributes), definitions(network)
    imports, whole = ["import torch", "from torch import Tensor"], "\n".join([*made, text])
    for names, line in MODEL_IMPORTS.items():
        used = [name for name in names.split(", ") if re.search(rf"(?<![.\w])(?<!def ){name}(?![\w ])", whole)]
        imports += [line.format(", ".join(used))] if used else []
    head = MODEL_HEAD
    if isinstance(spec, GeneralSpec):
        head = GENERAL_HEAD.format(directions=DIRECTIONS[basis.layout.dimension])
    return "\n".join([head, *imports, "", *made, "", "", text])


def _architecture_module(spec: AnySpec, basis: BasisProgram, max_rank: int) -> str:
    """Constants of the package; every value is validated and printed by ``repr``."""
    line = basis.scalars.forward
    constants: dict[str, Any] = {
        "NAME": spec.name,
        "SPEC_DIGEST": spec.digest,
        "MAX_RANK": max_rank,
        "N_COMPONENTS": line.inputs[0].size,
        "N_INVARIANTS": line.results[0].size,
        "INVARIANTS": tuple(invariant.name for invariant in basis.basis.invariants),
    }
    if isinstance(spec, GeneralSpec):
        constants |= {
            "SPECIES": tuple((symbol, ATOMIC_NUMBERS[symbol]) for symbol in spec.species),
            "FEATURES": spec.layers[0].density.channels,
            "CUTOFF": float(spec.radial.cutoff),
        }
    elif spec.network is not None:
        constants |= _network_constants(spec.network)
    lines = [f"{name} = {_repr(value)}" for name, value in constants.items()]
    return '"""What the spec asks for, as constants. Lengths in Å."""\n\n' + "\n".join(lines) + "\n"


def _network_constants(network: NetworkSpec) -> dict[str, Any]:
    return {
        "SPECIES": tuple((symbol, ATOMIC_NUMBERS[symbol]) for symbol in network.species),
        "FEATURES": network.features,
        "INTERACTIONS": network.interactions,
        "ATOM_LAYERS": network.atom_layers,
        "SENSITIVITY_FUNCTIONS": network.sensitivity.functions,
        "SOFT_MIN": float(network.sensitivity.soft_min),
        "SOFT_MAX": float(network.sensitivity.soft_max),
        "CUTOFF": float(network.sensitivity.cutoff),
        "GROUP_NORM": network.group_norm,
        "RESIDUAL": network.residual,
    }


def _repr(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return "(" + "".join(_repr(item) + ", " for item in value)[: -1 if len(value) == 1 else -2] + ")"
    return repr(value)


def _init_module(spec: AnySpec, basis: Basis, network: Layer | None) -> str:
    names = [*INVARIANT_EXPORTS, *(NETWORK_EXPORTS if network is not None else ())]
    imports = ["from .invariants import invariants"]
    if network is not None:
        imports.insert(0, "from ._runtime.potential import EnergyAndForces, Prediction")
        imports.append("from .model import Model")
    imports.append("from .tensors import tensor_components")
    exports = "\n".join(f'    "{name}",' for name in sorted(names))
    return (
        f'"""{spec.name}: {len(basis)} invariants of the family {basis.family}, body order {basis.body_order}, '
        f'rank {basis.max_rank}."""\n\n' + "\n".join(imports) + f"\n\n__all__ = [\n{exports}\n]\n"
    )


def _manifest(spec: AnySpec, bases: Sequence[BasisProgram], files: list[str]) -> str:
    first, *others = ({"basis": one.basis.to_json(), "operations": _operations(one.instructions)} for one in bases)
    content = {
        "name": spec.name,
        "spec_digest": spec.digest,
        "tensorgraph_version": __version__,
        **first,
        **({"later_layers": others} if others else {}),
        "spec": json.loads(spec.canonical_json()),
        "runtime": runtime_entry(),
        "files": files,
    }
    return manifest_text(content)


def _operations(programs: Derivatives[StraightLine | Table]) -> dict[str, int]:
    return {name: line.operations.total for name, line in programs._asdict().items()}
