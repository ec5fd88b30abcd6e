"""The contraction program: pairwise contractions with intermediates shared across the whole family."""

from tensorgraph.contractions.search import contraction_program
from tensorgraph.contractions.types import ContractionProgram, Operand, Output, Step, run

__all__ = ["ContractionProgram", "Operand", "Output", "Step", "contraction_program", "run"]
