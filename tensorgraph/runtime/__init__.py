"""What runs a generated package on real atoms: loading, neighbour lists and batches, checkpoints.

Unlike the compiler, this part imports torch; the compiler imports nothing from here.
"""

from tensorgraph.runtime.batch import Batch, batch_structures
from tensorgraph.runtime.checkpoint import load_checkpoint, save_checkpoint
from tensorgraph.runtime.loading import load_package

__all__ = ["Batch", "batch_structures", "load_checkpoint", "load_package", "save_checkpoint"]
