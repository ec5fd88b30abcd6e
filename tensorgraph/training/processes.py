"""The processes of a run: what spreads it over those that `torchrun` started, and signals that end it in order."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

from tensorgraph.errors import MissingToolError, TrainingError
from tensorgraph.neighbours.arguments import chosen_device
from tensorgraph.training.config import TrainConfig
from tensorgraph.training.progress import Tell


class Interruptible(Protocol):
    """What ends by itself, in order, once `interrupted` is set."""

    interrupted: bool


def fabric_of(config: TrainConfig) -> Any:
    """What spreads a run over the processes that `torchrun` started, or runs it in this one.

    Raises MissingToolError, and TrainingError for a device that is not there.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingToolError(f"training needs lightning-fabric: pip install 'tensorgraph[train]' ({error})") from None
    try:
        found = chosen_device(config.device)
    except ValueError as error:
        raise TrainingError(f"device: {error}") from None
    common: dict[str, Any] = {"accelerator": found.type, "precision": "32-true"}  # which converts nothing
    if not TorchElasticEnvironment.detect():
        devices = 1 if found.type == "cpu" else [found.index or 0]
        fabric = Fabric(**common, devices=devices, plugins=[LightningEnvironment()])
    else:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        # Of no account here: it concerns the speed of copies of a few numbers.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        fabric = Fabric(**common, devices=local, num_nodes=world // local, strategy=DDPStrategy())
    fabric.launch()
    return fabric


@contextlib.contextmanager
def interruptions(
    run: Interruptible, tell: Tell, what: str = "the run is saved and ends after this step"
) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run after the step; a second Ctrl-C at once."""

    def stop(number: int, _frame: object) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.interrupted = True
        tell(f"{signal.Signals(number).name}: {what}")

    try:
        earlier = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
