"""The scalar program: hash-consed straight-line arithmetic over tensor components, closed under differentiation."""

from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.instructions import Instruction, Opcode, OperationCount, Store, StraightLine
from tensorgraph.scalar.ir import ArrayRef, Axes, Builder, Linear, ScalarProgram, evaluate
from tensorgraph.scalar.lowering import Derivatives, lower_invariants, lower_sensitivities, lower_tensor_components
from tensorgraph.scalar.scheduling import scheduled

__all__ = [
    "ArrayRef",
    "Axes",
    "Builder",
    "Derivatives",
    "Instruction",
    "Linear",
    "Opcode",
    "OperationCount",
    "ScalarProgram",
    "Store",
    "StraightLine",
    "evaluate",
    "lower_invariants",
    "lower_sensitivities",
    "lower_tensor_components",
    "scheduled",
    "vector_jacobian_product",
]
