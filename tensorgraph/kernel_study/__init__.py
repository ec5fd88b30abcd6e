"""What the Triton kernels of a spec cost, without a GPU: compiled ahead of time, disassembled, predicted."""

from tensorgraph.kernel_study.compilation import (
    DTYPES,
    OPERATORS,
    TARGETS,
    Dtype,
    KernelCost,
    KernelStudy,
    Target,
    require_triton,
    study_kernels,
)
from tensorgraph.kernel_study.disassembly import MachineCode, read_amdgcn, read_sass
from tensorgraph.kernel_study.prediction import GPU, GPUS, Prediction, Work, predict

__all__ = [
    "DTYPES",
    "GPU",
    "GPUS",
    "OPERATORS",
    "TARGETS",
    "Dtype",
    "KernelCost",
    "KernelStudy",
    "MachineCode",
    "Prediction",
    "Target",
    "Work",
    "predict",
    "read_amdgcn",
    "read_sass",
    "require_triton",
    "study_kernels",
]
