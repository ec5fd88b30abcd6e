"""The scalar program: hash-consed straight-line arithmetic over tensor components, closed under differentiation."""

from tensorgraph.scalar.adjoint import vector_jacobian_product
from tensorgraph.scalar.derivatives import Derivatives
from tensorgraph.scalar.instructions import Instruction, Opcode, OperationCount, Store, StraightLine
from tensorgraph.scalar.ir import ArrayRef, Axes, Builder, Linear, ScalarProgram, evaluate
from tensorgraph.scalar.lowering import lower_invariants
from tensorgraph.scalar.scheduling import scheduled
from tensorgraph.scalar.tables import Table, evaluate_table, table_derivatives
from tensorgraph.scalar.tabulating import check_products, products_of, tabulated

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
    "Table",
    "check_products",
    "evaluate",
    "evaluate_table",
    "lower_invariants",
    "products_of",
    "scheduled",
    "table_derivatives",
    "tabulated",
    "vector_jacobian_product",
]
