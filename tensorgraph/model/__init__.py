"""What runs a generated package on real atoms: loading, neighbour lists and batches, checkpoints.

Unlike the compiler, this part imports torch; the compiler imports nothing from here.
"""

from tensorgraph.model.batch import Batch, batch_structures
from tensorgraph.model.checkpoint import load_checkpoint, save_checkpoint
from tensorgraph.model.loading import load_package
from tensorgraph.model.memory import keep_freed_memory
from tensorgraph.model.prediction import StructurePrediction, predict
from tensorgraph.neighbours.lists import neighbour_tensors

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
