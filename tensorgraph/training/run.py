"""`tensorgraph train`: from a config to a checkpoint, or to a committee of them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

import tensorgraph
from tensorgraph.atomic import write_atomically
from tensorgraph.errors import MissingToolError, TrainingError
from tensorgraph.potential import WEIGHTS
from tensorgraph.runtime.arguments import DTYPES, chosen_device
from tensorgraph.runtime.checkpoint import save_checkpoint
from tensorgraph.runtime.memory import keep_freed_memory
from tensorgraph.training.batches import epoch_batches
from tensorgraph.training.config import BatchConfig, TrainConfig
from tensorgraph.training.data import Data, listed_parts, parts_of, read_data
from tensorgraph.training.design import FreeParameters
from tensorgraph.training.least_squares import Interrupted, LeastSquares, check_keys
from tensorgraph.training.loop import STATE, Loop
from tensorgraph.training.optimisation import averaged_model, freeze, optimizer_of
from tensorgraph.training.progress import Metrics, Tell, duration
from tensorgraph.training.samples import Samples
from tensorgraph.training.scaling import scale_to_data
from tensorgraph.training.soap import Scale
from tensorgraph.training.start import Subject, set_atomic_energies, subject_of
from tensorgraph.training.state import Progress, RunState, SavedState, read_state
from tensorgraph.training.validation import figures_of

SCALED_TO = BatchConfig(structures=64, pairs=200_000)  # what a new model's weights are scaled to
BEST, LAST, CONFIG = WEIGHTS, "last.safetensors", "config.json"
FREE = ("out", "minutes", "epochs", "steps", "device", "log", "seed")
"""Keys of a config that may change when a run goes on; `seed` is compared by the folders of the members."""


@dataclass(frozen=True)
class Outcome:
    """What a run of training gave: the checkpoint, how far it got, and whether it was interrupted."""

    checkpoint: Path
    steps: int
    seconds: float
    best: float | None
    interrupted: bool


def train(config: TrainConfig, *, resume: bool = False, overwrite: bool = False, tell: Tell = print) -> list[Outcome]:
    """Train one model for every seed of the config; `tell` is given lines about the progress.

    With `resume` a run goes on from the state in its folder, exactly as if it had not stopped; with `overwrite` one
    that stands there is replaced. Raises TrainingError where neither is asked for and a run stands there, and for what
    cannot be trained; DataError and StructureError for the data; and what reading a spec or checkpoint raises.
    """
    check_keys(config)
    folders = config.member_folders
    for folder in folders.values():
        _check_folder(folder, resume, overwrite)
    keep_freed_memory()
    fabric = _fabric(config)
    say: Tell = tell if fabric.is_global_zero else lambda _: None
    subject = subject_of(config.model)
    data = read_data(config.data, tuple(subject.species.values()), say)
    outcomes: list[Outcome] = []
    for seed, folder in folders.items():
        if len(folders) > 1:
            say(f"seed {seed}, {len(outcomes) + 1} of {len(folders)}: {folder}")
        member = _train_member if config.method == "gradient" else _fit_member
        outcomes.append(member(fabric, config, subject, data, seed, folder, resume, say))
        if outcomes[-1].interrupted:
            break
    return outcomes


def _check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    held = [name for name in (STATE, BEST, LAST) if (folder / name).exists()]
    if held and not (resume or overwrite):
        raise TrainingError(f"{folder} holds a run ({held[0]}); allowed: --resume, --overwrite, or another `out`")


def _train_member(
    fabric: Any, config: TrainConfig, subject: Subject, data: Data, seed: int, folder: Path, resume: bool, say: Tell
) -> Outcome:
    saved = read_state(folder / STATE) if resume and (folder / STATE).exists() else None
    if resume and saved is None:
        _check_same_config(folder, config)
    parts = parts_of(data, config.data, seed, say)
    samples = listed_parts(parts, config, subject, folder, say)
    if saved is None:
        _prepare(folder, config, fabric)
    else:
        _check_same_run(saved, config, samples[0])
    state = _starting_state(config, subject, seed, samples[0], fabric.device)
    if saved is not None:
        state.load(saved)
        if fabric.world_size > 1:  # the file holds the first process's sums alone
            state.progress.sums, state.progress.counts = [0.0] * 4, [0.0] * 4
        say(f"going on from step {state.progress.step}, after {duration(state.progress.seconds)}")
    keep = _Keeper(config, subject.package, folder, seed, state.progress)
    loop = Loop(fabric, config, seed, state, samples, folder, keep, say)
    with _interruptions(loop, say):
        loop.fit()
    return _finish(loop, keep, say)


def _fit_member(
    fabric: Any, config: TrainConfig, subject: Subject, data: Data, seed: int, folder: Path, resume: bool, say: Tell
) -> Outcome:
    """Least squares, which begins anew with `resume`: it is over soon, and has nothing to go on from."""
    if resume:
        _check_same_config(folder, config)
        say("least squares keeps no state between: it begins anew")
    exact = config.model_copy(update={"dtype": "float64"})
    parts = parts_of(data, config.data, seed, say)
    samples = listed_parts(parts, exact, subject, folder, say)
    model = _exact_model(exact, subject, seed, samples[0], fabric.device)
    fit = LeastSquares(fabric, config, model, samples, say)
    progress = Progress()
    try:
        with _interruptions(fit, say, "least squares ends without a result"):
            solutions, best = fit.fit()
    except Interrupted:
        return Outcome(folder / BEST, 0, fit.seconds, None, True)
    progress.step, progress.seconds, progress.best = len(solutions), fit.seconds, best.score
    _prepare(folder, config, fabric)  # what an earlier run left stays until there is something in its place
    if fabric.is_global_zero:
        metrics = Metrics(folder, config.log.tensorboard, 0)
        keep = _Keeper(config, subject.package, folder, seed, progress)
        for step, one in enumerate(solutions, 1):
            row = {f"train_{name}": value for name, value in figures_of(one.train).items()}
            if one.valid is not None:
                row |= {f"valid_{name}": value for name, value in figures_of(one.valid).items()}
                row |= {"valid_score": one.score}
            metrics.add({"step": step, "epoch": 1, "seconds": progress.seconds, "rate": one.ridge} | row)
        keep(LAST, model)
        keep(BEST, model)
        say(f"done after {duration(fit.seconds)}: ridge {best.ridge:g}")
    fabric.barrier()
    return Outcome(folder / BEST, progress.step, progress.seconds, progress.best, False)


def _exact_model(config: TrainConfig, subject: Subject, seed: int, train: Samples, device: torch.device) -> Any:
    """The float64 model that a linear fit starts from: a checkpoint's weights, else zero for what is not frozen."""
    model = _started_model(config, subject, seed, train, device)[0]
    freeze(model, config.freeze)
    if subject.checkpoint is None:
        free = FreeParameters.of(model)
        free.set(torch.zeros_like(free.vector()))
    set_atomic_energies(model, subject, config, train)
    return model


def _fabric(config: TrainConfig) -> Any:
    """What spreads a run over the processes that `torchrun` started, or runs it in this one."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingToolError(f"training needs lightning-fabric: pip install 'tensorgraph[train]' ({error})") from None
    found = chosen_device(config.device)
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


def _prepare(folder: Path, config: TrainConfig, fabric: Any) -> None:
    """Remove what an earlier run left, and write the config down."""
    if fabric.is_global_zero:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (STATE, BEST, LAST, "metrics.csv"):
                (folder / name).unlink(missing_ok=True)
            write_atomically(json.dumps(json.loads(config.canonical_json()), indent=2).encode(), folder / CONFIG)
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror or error}") from error
    fabric.barrier()


def _check_same_run(saved: SavedState, config: TrainConfig, train: Samples) -> None:
    _check_keys_kept(saved.path, json.loads(saved.config), config)
    if saved.data != train.digest:
        raise TrainingError(f"{saved.path} is the state of a run on other structures or labels: the data changed")


def _check_keys_kept(path: Path, before: dict[str, Any], config: TrainConfig) -> None:
    now = json.loads(config.canonical_json())
    for key in sorted(set(before) | set(now)):
        if key not in FREE and before.get(key) != now.get(key):
            raise TrainingError(
                f"{path} is the state of a run with {key}: {before.get(key)!r}, not {now.get(key)!r}; "
                f"allowed to change with --resume: {', '.join(FREE)}"
            )


def _check_same_config(folder: Path, config: TrainConfig) -> None:
    """Of a run that is over and has left no state: what it wrote is not replaced by another run's."""
    if (folder / STATE).exists():
        raise TrainingError(f"{folder} holds the state of a run with method: gradient; allowed: --overwrite")
    path = folder / CONFIG
    if not (folder / LAST).exists() or not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    _check_keys_kept(path, before, config)


def _starting_state(config: TrainConfig, subject: Subject, seed: int, train: Samples, device: torch.device) -> RunState:
    model, scales = _started_model(config, subject, seed, train, device)
    set_atomic_energies(model, subject, config, train)
    freeze(model, config.freeze)
    average = averaged_model(model, config.optimizer.average) if config.optimizer.average else None
    return RunState(model, average, optimizer_of(model, config.optimizer, scales), {}, Progress())


def _started_model(
    config: TrainConfig, subject: Subject, seed: int, train: Samples, device: torch.device
) -> tuple[torch.nn.Module, dict[torch.Tensor, Scale] | None]:
    """The model, scaled to the data where it is new, and its scales."""
    model = subject.model(seed, DTYPES[config.dtype], device)
    model.validate = False  # type: ignore[assignment]  # the structures were checked when their pairs were listed
    scales = None
    if config.start.scaled and subject.checkpoint is None:
        chosen = epoch_batches(train, SCALED_TO, 0, 0)[0]
        batch = train.batch(chosen, DTYPES[config.dtype], device)
        scales = scale_to_data(model, subject.package, batch, config.start)
    return model, scales


@dataclass(frozen=True)
class _Keeper:
    """Writes checkpoints into the folder of a run, with how they came about."""

    config: TrainConfig
    package: ModuleType
    folder: Path
    seed: int
    progress: Progress

    def __call__(self, name: str, model: torch.nn.Module) -> None:
        document = {
            "config": json.loads(self.config.canonical_json()) | {"seed": [self.seed]},
            "versions": versions(),
            "step": self.progress.step,
            "seconds": round(self.progress.seconds, 1),
            "score": self.progress.best,
        }
        save_checkpoint(model, self.package, self.folder / name, training=json.dumps(document, sort_keys=True))


def versions() -> dict[str, str]:
    """Of what decides the numbers of a run."""
    import ase

    found = {"tensorgraph": tensorgraph.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return found | {"ase": ase.__version__, "python": platform.python_version(), "machine": platform.machine()}


@contextlib.contextmanager
def _interruptions(
    loop: Loop | LeastSquares, tell: Tell, what: str = "the run is saved and ends after this step"
) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run after the step; a second Ctrl-C at once."""

    def stop(number: int, _frame: object) -> None:
        if loop.interrupted:
            raise KeyboardInterrupt
        loop.interrupted = True
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


def _finish(loop: Loop, keep: _Keeper, tell: Tell) -> Outcome:
    """Write the last weights, and the best where no validation chose any. Raises what writing raises."""
    state, progress = loop.state, loop.state.progress
    if loop.fabric.is_global_zero:
        keep(LAST, state.evaluated())
        if not state.best:
            keep(BEST, state.evaluated())
        elif loop.trouble or not (keep.folder / BEST).exists():
            best = keep.package.Model().to(state.model.dtype)
            best.load_state_dict(state.best)
            keep(BEST, best)
        if loop.trouble:
            raise TrainingError(loop.trouble)
        end = "interrupted" if loop.interrupted else "done"
        tell(f"{end} after {progress.step} steps, {progress.epoch} epochs, {duration(progress.seconds)}")
    loop.fabric.barrier()
    return Outcome(keep.folder / BEST, progress.step, progress.seconds, progress.best, loop.interrupted)
