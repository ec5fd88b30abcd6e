"""The basis of a layer with its programs, from contractions to instructions."""

from __future__ import annotations

from dataclasses import dataclass

from tensorgraph.basis import Basis
from tensorgraph.contractions import ContractionProgram, contraction_program
from tensorgraph.scalar import (
    Derivatives,
    ScalarProgram,
    StraightLine,
    Table,
    lower_invariants,
    scheduled,
    tabulated,
)


@dataclass(frozen=True)
class BasisProgram:
    """A basis and what is computed of it; ``stem`` names the files that hold the programs.

    In four dimensions that is a table, the same before and after scheduling: in the components of spinors the products
    are few, but as straight-line code they would still be too long.
    """

    stem: str
    basis: Basis
    contractions: ContractionProgram
    scalars: Derivatives[ScalarProgram | Table]
    instructions: Derivatives[StraightLine | Table]

    @classmethod
    def of(cls, stem: str, basis: Basis) -> BasisProgram:
        """The programs of a basis."""
        contractions = contraction_program(basis.graphs, basis.layout)  # Basis → ContractionProgram
        if basis.layout.dimension == 4:
            table = tabulated(basis.graphs, basis.layout)  # Basis → Table, three of them
            return cls(stem, basis, contractions, table, table)
        scalars = lower_invariants(contractions)  # ContractionProgram → ScalarProgram, three of them
        instructions = Derivatives(*map(scheduled, scalars))  # ScalarProgram → StraightLine
        return cls(stem, basis, contractions, scalars, instructions)

    @property
    def rows(self) -> int | None:
        """Of the table of values; None where there are printed programs."""
        forward = self.instructions.forward
        return len(forward.places) if isinstance(forward, Table) else None

    @property
    def ranks(self) -> dict[int, int]:
        """How many outputs there are of each rank, ascending."""
        found: dict[int, int] = {}
        for output in self.contractions.outputs:
            found[output.rank] = found.get(output.rank, 0) + 1
        return dict(sorted(found.items()))
