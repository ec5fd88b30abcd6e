"""What runs a generated package on real atoms: loading, neighbour lists and batches, checkpoints.

Unlike the compiler, this part imports torch; the compiler imports nothing from here.
"""

from tensorgraph.runtime.batch import Batch, batch_structures
from tensorgraph.runtime.checkpoint import load_checkpoint, save_checkpoint
from tensorgraph.runtime.evaluation import StructurePrediction, predict
from tensorgraph.runtime.loading import load_package
from tensorgraph.runtime.memory import keep_freed_memory
from tensorgraph.runtime.neighbours import neighbour_tensors

__all__ = [
    "Batch",
    "StructurePrediction",
    "batch_structures",
    "keep_freed_memory",
    "load_checkpoint",
    "load_package",
    "neighbour_tensors",
    "predict",
    "save_checkpoint",
]
