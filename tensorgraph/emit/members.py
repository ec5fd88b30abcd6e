"""The weights and inner layers of a printed module: how they are made, in the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod
from typing import Any

from tensorgraph.emit.printing import wrapped
from tensorgraph.network import Child, Fixed, Layer, Parameter
from tensorgraph.network.weights import Constant, Equidistant, Normal, Uniform


def members_of(layer: Layer) -> Iterator[str]:
    """Weights and layers inside, in the order in which they are drawn."""
    for attribute, group in groupby(layer.members, key=_attribute):
        members = list(group)
        if isinstance(members[0], Fixed):
            yield from _fixed(members[0])
        elif all(isinstance(member, Parameter) for member in members):
            yield from _parameters(attribute, [m for m in members if isinstance(m, Parameter)])
        else:
            yield from _children(attribute, [m for m in members if isinstance(m, Child)])


def _attribute(member: Any) -> str:
    """The first part of a member's name: those that share it stand together."""
    return (member.path if isinstance(member, Child) else member.name).split(".")[0]


def _fixed(member: Fixed) -> Iterator[str]:
    """Numbers that are not trained."""
    yield f"# {member.array.symbol or member.name}, [{', '.join(space.name for space in member.array.spaces)}]"
    sizes = [space.extent for space in member.array.spaces]
    entries = (f"{position}: {value!r}" for position, value in member.values)
    yield from wrapped(f"self.{member.name} = Fixed({sizes!r}, {{", entries, "})")


def _children(attribute: str, children: Sequence[Any]) -> Iterator[str]:
    classes = [f"{child.layer.name}(random)" for child in children]
    if "." in children[0].path:
        yield from wrapped(f"self.{attribute} = torch.nn.ModuleList([", classes, "])")
    else:
        yield f"self.{attribute} = {classes[0]}"


def _parameters(attribute: str, parameters: Sequence[Parameter]) -> Iterator[str]:
    """Weights alone, a linear layer, a list of such layers, or several weights together."""
    if parameters[0].name == attribute:
        (parameter,) = parameters
        yield f"# {parameter.array.symbol or attribute}, [{', '.join(space.name for space in parameter.array.spaces)}]"
        yield f"self.{attribute} = {_drawn(parameter)}"
        return
    layers = {name: list(group) for name, group in groupby(parameters, key=lambda p: p.name.rpartition(".")[0])}
    if all(
        own[0].name.endswith(".weight") and len(own[0].array.spaces) == 2 and _is_linear(own) for own in layers.values()
    ):
        texts = [_linear(own) for own in layers.values()]
        if "." in next(iter(layers)):
            yield from wrapped(f"self.{attribute} = torch.nn.ModuleList([", texts, "])")
        else:
            yield f"self.{attribute} = {texts[0]}"
        return
    given = (f"{parameter.name.rpartition('.')[2]}={_drawn(parameter)}" for parameter in parameters)
    yield from wrapped(f"self.{attribute} = Weights(", given, ")")


def _is_linear(parameters: Sequence[Parameter]) -> bool:
    weight = parameters[0]
    drawn = isinstance(weight.initial, Normal | Uniform)
    return drawn and weight.name.endswith(".weight") and len(weight.array.spaces) == 2


def _linear(parameters: Sequence[Parameter]) -> str:
    """A linear layer; weights of variance 2 / (n_in + n_out) are called by Xavier's name."""
    n_out, n_in = (space.extent for space in parameters[0].array.spaces)
    options = "" if len(parameters) == 2 else ", bias=False"
    options += ", xavier=True" if isinstance(parameters[0].initial, Normal) else ""
    return f"linear({n_in}, {n_out}, random{options})"


def _drawn(parameter: Parameter) -> str:
    """How a weight begins."""
    sizes = [space.extent for space in parameter.array.spaces]
    shape = f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"
    match parameter.initial:
        case Normal(deviation):
            return f"torch.nn.Parameter(normal({shape}, {deviation!r}, random))"
        case Uniform(bound):
            return f"torch.nn.Parameter(uniform({shape}, {bound!r}, random))"
        case Constant(value):
            return f"torch.nn.Parameter(torch.full({shape}, {value!r}))"
        case Equidistant(first, last, inverse):
            text = f"torch.linspace({first!r}, {last!r}, {prod(sizes)})"
            return f"torch.nn.Parameter({'1 / ' if inverse else ''}{text})"
