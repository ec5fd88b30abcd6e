"""A family, a radial function, a readout and a target, each added from outside, without touching the package."""

import importlib
from math import pi

import numpy as np
import pytest
import torch

from tensorgraph.basis import FAMILIES, derive
from tensorgraph.basis.rule import Family, add_family
from tensorgraph.basis.verification import verify_basis
from tensorgraph.compiler import compile_spec
from tensorgraph.emit import write_package
from tensorgraph.emit.targets import TARGETS, add_target
from tensorgraph.errors import SpecError
from tensorgraph.model import load_package
from tensorgraph.network import ATOM, Array, Contract, Layer, Parameter, Pointwise, Program
from tensorgraph.network.hiphop import OUT, applied, linear
from tensorgraph.network.pairs import lower_pointwise
from tensorgraph.network.radial import RADIAL, add_radial
from tensorgraph.network.readouts import READOUTS, add_readout, read_by
from tensorgraph.scalar import ArrayRef, Builder, Opcode
from tensorgraph.scalar.derivatives import Argument, derived
from tensorgraph.scalar.instructions import Store
from tensorgraph.spec import names, parse_spec
from tests.test_statements import check

SPEC = """
name: added
species: [H, O]
radial: {kind: %s, functions: 3, cutoff: 4.0}
layers:
  - density: {max_rank: 1, channels: 4}
    basis: {family: %s, body_order: 3}
    update: {activation: silu}
readout: {kind: %s}
"""


@pytest.fixture(autouse=True)
def as_it_was():
    """What a test adds is gone behind it."""
    tables = (FAMILIES, RADIAL, READOUTS, TARGETS)
    lists = [one.known for one in vars(names).values() if isinstance(one, names.Names)]
    before, kept = [dict(table) for table in tables], [list(one) for one in lists]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for one, content in zip(lists, kept, strict=True):
        one[:] = content


def built(tmp_path, radial="chebyshev", family="linear", readout="linear"):
    compilation = compile_spec(parse_spec(SPEC % (radial, family, readout)))
    return compilation, load_package(write_package(compilation.package, tmp_path))


def test_a_radial_function(tmp_path):
    def cosines(radial):
        """``(1 + cos(n π r / R_c)) / 2`` for odd n: zero, and flat, at the cutoff."""
        builder = Builder()
        distance = Argument.of(builder, ArrayRef("distance", 1))
        inside = builder.apply("inside", builder.sum([builder.one, distance.elements[0].scaled(-1 / radial.cutoff)]))
        values = []
        for n in range(1, 2 * radial.functions, 2):
            cosine = builder.apply("cos", distance.elements[0].scaled(n * pi / radial.cutoff))
            values.append(builder.product(builder.sum([builder.one, cosine]), inside).scaled(0.5))
        return derived(builder, [distance], ArrayRef("radial_functions", radial.functions), values)

    with pytest.raises(SpecError, match=r"`radial\.kind` is 'cosines'; allowed: one of .*, bessel, hypersphere$"):
        parse_spec(SPEC % ("cosines", "linear", "linear"))
    add_radial("cosines", cosines)
    compilation, module = built(tmp_path, radial="cosines")
    check(compilation.network, module, 6, 4.0)
    with pytest.raises(ValueError, match="no new name"):
        add_radial("cosines", cosines)


def test_a_family(tmp_path):
    """Products of pairs alone, every one of them: the rule is a preset of the choices that are there."""
    add_family("everything", Family("all", "nothing"))
    basis = derive("everything", 4, 1)
    assert basis.graphs == derive("products", 4, 1).graphs
    assert [problem for check_ in verify_basis(basis.to_json()) for problem in check_.problems] == []
    compilation, module = built(tmp_path, family="everything")
    check(compilation.network, module, 6, 4.0)


def test_a_readout(tmp_path):
    def squares(spec, z, made):
        """The energy of an atom is a weighted sum of tanh of its features."""
        inputs = read_by(spec, z, made)
        terms = [Array(f"energy_{k}", (ATOM,)) for k in range(len(inputs))]
        members = linear("of_species", OUT, z.spaces[1], "w", bias=False)
        body = [Contract(terms[0]["i"], applied(members, z))]
        for k, (source, term) in enumerate(zip(inputs[1:], terms[1:], strict=True)):
            curved = Array(f"curved_{k}", source.spaces)
            program = Program("tanh", lower_pointwise("tanh"))
            body.append(Pointwise(program, (curved,), (source,), ATOM, source.spaces[1]))
            own = linear(f"of_layers.{k}", OUT, source.spaces[1], "wb")
            members = [*members, *own]
            body.append(Contract(term["i"], applied(own, curved)))
        assert all(isinstance(member, Parameter) for member in members)
        return Layer("EnergyHeads", "E_i = Σ w tanh(h_i)", tuple(inputs), tuple(terms), tuple(members), tuple(body))

    add_readout("curved", squares)
    compilation, module = built(tmp_path, readout="curved")
    check(compilation.network, module, 6, 4.0)


PATTERNS = {
    Opcode.MULTIPLY: "{a} * {b}",
    Opcode.ADD: "{a} + {b}",
    Opcode.SUBTRACT: "{a} - {b}",
    Opcode.MULTIPLY_ADD: "{a} + {b} * {c}",
    Opcode.MULTIPLY_SUBTRACT: "{a} - {b} * {c}",
}


def numpy_functions(programs, commentary):
    """Programs without sums as functions of numpy arrays ``[n, size, channels]``."""
    lines = [f'"""{commentary.subject} in numpy."""', "import numpy as np"]
    for name, line in programs._asdict().items():
        lines.append(f"def {name}({', '.join(array.name for array in line.inputs)}):")
        first = line.inputs[0].name
        shapes = (f"({first}.shape[0], {array.size}, {first}.shape[2])" for array in line.outputs)
        lines += [f"    {a.name} = np.zeros({shape})" for a, shape in zip(line.outputs, shapes, strict=True)]
        for item in line.body:
            if isinstance(item, Store):
                lines += [f"    {item.array}[:, {item.index}] = x{item.target}"] if item.target is not None else []
            elif item.source is not None:
                lines.append(f"    x{item.target} = {item.source.array}[:, {item.source.index}]")
            elif item.opcode in (Opcode.SCALE, Opcode.CONSTANT):
                factor = f" * x{item.operands[0]}" if item.operands else f" + 0 * {line.inputs[0].name}[:, 0]"
                lines.append(f"    x{item.target} = {float(item.constant)!r}{factor}")
            else:
                pattern = PATTERNS.get(item.opcode, f"np.{item.function or 'exp'}({{a}})")
                named = dict(zip("abc", (f"x{k}" for k in item.operands), strict=False))
                lines.append(f"    x{item.target} = {pattern.format(**named)}")
        lines.append(f"    return {', '.join(array.name for array in line.outputs)}")
    return "\n".join(lines) + "\n"


def test_a_target(tmp_path):
    add_target("_numpy.py", numpy_functions)
    _, module = built(tmp_path)
    printed = importlib.import_module(f"{module.__name__}.invariants_numpy")
    features = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(printed.forward(features.numpy()), module.invariants(features).numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="no new ending"):
        add_target("_numpy.py", numpy_functions)
