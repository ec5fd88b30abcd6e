"""The basis of a layer with its programs, from contractions to instructions."""

from __future__ import annotations

from dataclasses import dataclass

from tensorgraph.basis import Basis
from tensorgraph.contractions import ContractionProgram, contraction_program
from tensorgraph.scalar import Derivatives, ScalarProgram, StraightLine, lower_invariants, scheduled


@dataclass(frozen=True)
class BasisProgram:
    """A basis and what is computed of it; ``stem`` names the files that hold the programs."""

    stem: str
    basis: Basis
    contractions: ContractionProgram
    scalars: Derivatives[ScalarProgram]
    instructions: Derivatives[StraightLine]

    @classmethod
    def of(cls, stem: str, basis: Basis) -> BasisProgram:
        """The programs of a basis."""
        contractions = contraction_program(basis.graphs, basis.layout)  # Basis → ContractionProgram
        scalars = lower_invariants(contractions)  # ContractionProgram → ScalarProgram, three of them
        instructions = Derivatives(*map(scheduled, scalars))  # ScalarProgram → StraightLine
        return cls(stem, basis, contractions, scalars, instructions)

    @property
    def ranks(self) -> dict[int, int]:
        """How many outputs there are of each rank, ascending."""
        found: dict[int, int] = {}
        for output in self.contractions.outputs:
            found[output.rank] = found.get(output.rank, 0) + 1
        return dict(sorted(found.items()))
