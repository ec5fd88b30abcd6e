"""The demonstration: from a spec to a trained potential of gold clusters and dynamics with it, in minutes on a CPU.

Run as `python -m examples.gold`. Builds specs/gold.yaml, simulates six gold atoms with ASE's EMT, trains the generated
model on the first 2,000 samples, tests it on the last 500 beside published errors, runs dynamics, and plots.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from examples import au6
from examples.gold_report import Errors, Predictions, dynamics_line, errors_table, parity_plot
from examples.gold_training import Settings, affordable_steps, train
from tensorgraph.calculator import TensorGraphCalculator
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.runtime import Batch, batch_structures, load_package, save_checkpoint
from tensorgraph.spec import load_spec

SPEC = Path(__file__).parents[1] / "specs" / "gold.yaml"
N_TRAIN, N_TEST, DYNAMICS_STEPS = 2_000, 500, 1_000
out, log = Console(), Console(stderr=True)


def main() -> None:
    arguments = parse_arguments()
    directory: Path = arguments.out
    package_directory = write_package(compile_spec(load_spec(SPEC)).package, directory / "generated")
    package = load_package(package_directory)
    out.print(f"built {package_directory} from {SPEC.name}: {package.architecture.N_INVARIANTS} invariants")

    frames = trajectory(directory).frames()
    cutoff = package.architecture.CUTOFF
    training_set, test_set = frames[:N_TRAIN], frames[-N_TEST:]
    model = trained(package, batch_structures(training_set, cutoff, targets=True), 60 * arguments.minutes)
    checkpoint = directory / "model.safetensors"
    save_checkpoint(model, package, checkpoint)

    predictions = predict(model, batch_structures(test_set, cutoff, targets=True))
    out.print(errors_table(Errors.of(predictions)))
    calculator = TensorGraphCalculator(package_directory, checkpoint)
    out.print(dynamics_line(total_energies(test_set[0], calculator), n_atoms=6), soft_wrap=True)
    plot = parity_plot(predictions, directory / "parity.png")
    out.print(f"wrote {checkpoint} and {plot}", soft_wrap=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.gold", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("build/gold"), help="where everything is written (%(default)s)"
    )
    parser.add_argument("--minutes", type=positive, default=4.0, help="at most this long a training (%(default)s)")
    return parser.parse_args()


def positive(text: str) -> float:
    """A positive number of the command line; argparse reports a ValueError."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(f"{text} is not positive")
    return number


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr; yields a function that advances it and may say how things stand."""
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[state]}"), console=log) as bars:
        task = bars.add_task(title, total=total, state="")

        def advance(news: str = "") -> None:
            bars.update(task, advance=1, state=news)

        yield advance


def trajectory(directory: Path) -> au6.Trajectory:
    """The samples, simulated once and kept; simulated again where the kept ones are damaged."""
    path = directory / f"au6-emt-{au6.STEPS}-seed{au6.SEED}.npz"
    if path.is_file():
        try:
            return au6.load(path)
        except ValueError as error:
            log.print(f"{error}; simulating again", soft_wrap=True)
    with progress("simulating Au6", au6.STEPS // au6.KEPT_EVERY) as advance:
        au6.save(au6.simulate(au6.STEPS, on_sample=advance), path)
    return au6.load(path)


def trained(package: ModuleType, samples: Batch, seconds: float) -> torch.nn.Module:
    """A model trained on the samples within the time: fewer steps than planned only where the machine is slow."""
    settings = Settings()
    steps = affordable_steps(package, samples, settings, seconds)
    if steps < settings.steps:
        log.print(f"{steps} instead of {settings.steps} steps of training fit into {seconds:.0f} s on this machine")
    started = time.monotonic()
    with progress("training", steps) as advance:
        model = train(package, samples, settings, steps, advance)
    log.print(f"trained {steps} steps in {time.monotonic() - started:.0f} s")
    return model


def predict(model: torch.nn.Module, samples: Batch) -> Predictions:
    """Energies (eV) and forces (eV/Å) of the samples, true and predicted."""
    result = model.energy_and_forces(*samples.inputs)
    values = (samples.energy, result.energy, samples.forces, result.forces)
    return Predictions(*(value.double().numpy() for value in values))


def total_energies(start: Atoms, calculator: TensorGraphCalculator) -> np.ndarray:
    """Total energies (eV) of NVE dynamics of 1 fs that goes on from a sample, before and after every step."""
    atoms = start.copy()
    atoms.calc = calculator
    dynamics, energies = VelocityVerlet(atoms, timestep=units.fs), [atoms.get_total_energy()]
    with progress("dynamics", DYNAMICS_STEPS) as advance:
        for _ in range(DYNAMICS_STEPS):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
            advance()
    return np.array(energies)


if __name__ == "__main__":
    main()
