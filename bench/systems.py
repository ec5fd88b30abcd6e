"""Energy and forces of whole systems: proteins, water and a metal, ours beside the published implementation and MACE.

Run with `python -m bench.systems [--device cuda] [--mace]`: equal weights and equal numbers first, then time in turns
of the neighbour list and of each model, then the peak of memory of each model in a process of its own; and from boxes
of growing size the power of the number of atoms that the time grows as. Proteins are read from `systems` in the folder
that TENSORGRAPH_DATA names, and left out without it. All weights are random.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from bench.mace_model import SHAPE, MaceModel
from bench.published import choose_kernels, equal_models
from bench.runner import (
    difference,
    growth_exponent,
    in_own_process,
    interleaved,
    kind_of,
    machine,
    peak_memory,
    store,
    summary,
)
from bench.steps import TOLERANCE
from bench.structures import gold_crystal, structure, systems_folder, water_box
from tensorgraph.compiler import compile_spec
from tensorgraph.emit.writing import write_package
from tensorgraph.model.batch import Batch, batch_structures
from tensorgraph.model.loading import load_package
from tensorgraph.model.memory import keep_freed_memory
from tensorgraph.spec import Spec, load_spec

ROOT = Path(__file__).parents[1]
FILES = ("alanine_dipeptide", "chignolin", "alanine-dipeptide-explicit", "dhfr", "factorIX")
SERIES = {
    "water": tuple(f"water-{molecules}" for molecules in (343, 1000, 2000, 4096, 9261)),
    "gold": tuple(f"gold-{atoms}" for atoms in (1372, 4000, 10976, 27436)),
}
GOAL = 1.05
"""Of the power of the number of atoms that the time of a step grows as."""
SIZES_NEEDED = 4
CAPTURED_AT_MOST = 1000  # atoms; larger systems are not bound by launches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--systems", nargs="+", metavar="NAME", help="files, water-MOLECULES, gold-ATOMS (default: all)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer", choices=("hippynn", "none"), default="hippynn")
    parser.add_argument("--peer-atoms", type=int, default=6000, help="largest system of hippynn (default: 6000)")
    parser.add_argument("--mace", action="store_true", help="beside a MACE model too, where mace-torch is installed")
    parser.add_argument("--mace-atoms", type=int, default=2500, help="largest system of MACE (default: 2500)")
    parser.add_argument("--mace-cutoff", type=float, default=5.0, help="Å (default: 5)")
    options = parser.parse_args()
    keep_freed_memory()  # of all models alike
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(name, Path(folder), options) for name in options.systems or available()]
    rows += growth(rows)
    found = [row | machine(options.device) for row in rows]
    path = store(f"systems-{kind_of(options.device)}", found, identity=("case", "system", "series"))
    show(rows)
    print(path)


def available() -> list[str]:
    """All systems, but those whose file is not there."""
    files = [name for name in FILES if (systems_folder() / f"{name}.xyz").is_file()]
    if len(files) < len(FILES):
        print(f"left out, there is no file of them in {systems_folder()}: {', '.join(sorted({*FILES} - {*files}))}")
    return [*files, *(name for series in SERIES.values() for name in series)]


def package_for(atoms: Atoms, folder: Path) -> ModuleType:
    """`hiphop5`, or `gold` for gold; for elements that it lacks a package of the same shape, compiled into `folder`."""
    symbols = set(atoms.get_chemical_symbols())
    spec = with_species(load_spec(ROOT / "specs" / ("gold.yaml" if symbols == {"Au"} else "hiphop5.yaml")), symbols)
    committed, compiled = ROOT / "generated" / spec.name, folder / spec.name
    if committed.is_dir():
        return load_package(committed)
    return load_package(compiled if compiled.is_dir() else write_package(compile_spec(spec).package, folder))


def with_species(spec: Spec, symbols: set[str]) -> Spec:
    """The spec itself, or for elements that it lacks one that has them too and says so in its name."""
    assert spec.network is not None
    missing = tuple(sorted(symbols - {*spec.network.species}))
    if not missing:
        return spec
    network = spec.network.model_copy(update={"species": spec.network.species + missing})
    return spec.model_copy(update={"name": f"{spec.name}_with_{'_'.join(missing)}".lower(), "network": network})


class Sides:
    """Our model of a package and the wanted peers on one structure, the published one with equal weights."""

    def __init__(
        self, atoms: Atoms, package: ModuleType, peers: Collection[str], dtype: torch.dtype, options: argparse.Namespace
    ) -> None:
        self.atoms, self.package, self.dtype, self.device = atoms, package, dtype, options.device
        self.batch = self.neighbours()
        self.kernels = choose_kernels(self.device)
        self.published = self.mace = None
        if "hippynn" in peers:
            self.model, self.published = equal_models(package, 4, dtype, self.device)
        else:
            self.model = package.Model().to(self.device, dtype)
        if "mace" in peers:
            species = [number for _, number in package.architecture.SPECIES]
            self.mace = MaceModel(atoms, species, options.mace_cutoff, self.device)

    def neighbours(self) -> Batch:
        """The structure with its neighbour list, as tensors on the device."""
        return batch_structures([self.atoms], self.package.architecture.CUTOFF, self.dtype, self.device)

    def models(self) -> dict[str, Callable[[], list[Tensor]]]:
        """What gives energy and forces on every side."""
        found: dict[str, Callable[[], list[Tensor]]] = {"tensorgraph": self._ours}
        if self.published is not None:
            found["hippynn"] = self._theirs
        if self.mace is not None:
            found["mace"] = self.mace.energy_and_forces
        return found

    def _ours(self) -> list[Tensor]:
        found = self.model.energy_and_forces(*self.batch.inputs)
        return [found.energy, found.forces]

    def _theirs(self) -> list[Tensor]:
        return list(self.published.energies_and_forces(self.batch))


def measured(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One system: sizes, equality of numbers, times in turns, peaks of memory; and which peer was left out, and why."""
    atoms = structure(name)
    package = package_for(atoms, folder)
    peers, skipped = peers_for(len(atoms), options)
    agreed = checked_difference(package, options) if "hippynn" in peers else None
    sides = Sides(atoms, package, peers, torch.float32, options)
    runs = without_exhausted(sides.models(), skipped)
    seconds = interleaved({"neighbours": sides.neighbours} | runs, options.repeats, options.device)
    row = {"case": "energy and forces", "system": name, "package": package.architecture.NAME, "dtype": "float32"}
    row |= {"atoms": len(atoms), "pairs": sides.batch.pairs.shape[1], "periodic": bool(atoms.pbc.any())}
    constants = package.architecture
    row |= {"cutoff": constants.CUTOFF, "features": constants.FEATURES, "interactions": constants.INTERACTIONS}
    row |= {side: summary(times) for side, times in seconds.items()}
    row |= per_step(row, peers=[side for side in runs if side != "tensorgraph"])
    row["peak_kB_per_atom"] = {side: alone("print_peak", name, side, folder, options) for side in runs}
    if "hippynn" in runs:
        row |= {"largest_difference": agreed, "kernels": sides.kernels}
    if sides.mace is not None:
        row["mace_model"] = SHAPE | {"cutoff": options.mace_cutoff, "pairs": sides.mace.batch.pairs.shape[1]}
    if kind_of(options.device) == "cuda" and len(atoms) <= CAPTURED_AT_MOST:
        row["captured"] = alone("print_captured", name, "tensorgraph", folder, options)
    return row | {"skipped": skipped, "repeats": options.repeats}


def per_step(row: dict[str, Any], peers: Iterable[str]) -> dict[str, Any]:
    """What the medians of a row mean: a step is the neighbour list and our model; ratios are of models alone."""
    neighbours, model = (row[part]["median_ms"] for part in ("neighbours", "tensorgraph"))
    microseconds = {"model": 1e3 * model / row["atoms"], "step": 1e3 * (neighbours + model) / row["atoms"]}
    ratios = {peer: row[peer]["median_ms"] / model for peer in peers}
    return {"step_ms": neighbours + model, "us_per_atom": microseconds, "ratio": ratios}


def peers_for(n_atoms: int, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The peers that are asked for and that a system is not too large for; and of the others why not."""
    largest = {"hippynn": options.peer_atoms} if options.peer == "hippynn" else {}
    largest |= {"mace": options.mace_atoms} if options.mace else {}
    skipped = {peer: f"more than {most} atoms" for peer, most in largest.items() if n_atoms > most}
    return [peer for peer in largest if peer not in skipped], skipped


def without_exhausted(runs: dict[str, Callable[[], Any]], skipped: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """The runs that the memory of the GPU is enough for; the others are noted in `skipped`."""
    for side in [side for side in runs if side != "tensorgraph"]:
        try:
            runs[side]()
        except RuntimeError as error:  # of torch's own type, or of its scripts'
            if "out of memory" not in str(error):
                raise
            skipped[side] = "out of memory"
    return {side: run for side, run in runs.items() if side not in skipped}


def checked_difference(package: ModuleType, options: argparse.Namespace) -> float:
    """Largest difference to hippynn in float64 on a small periodic system with all elements; ends all if too large."""
    models = Sides(small_system(package), package, ["hippynn"], torch.float64, options).models()
    found = difference(models["tensorgraph"](), models["hippynn"]())
    if not found <= TOLERANCE:
        raise SystemExit(f"{package.architecture.NAME}: the two sides differ by {found:.1e}")
    return found


def small_system(package: ModuleType) -> Atoms:
    """A small periodic system with all elements of a package: gold, or water whose atoms were given other elements."""
    symbols = [symbol for symbol, _ in package.architecture.SPECIES]
    if symbols == ["Au"]:
        return gold_crystal(32)
    atoms = water_box(24)
    atoms.symbols = np.random.default_rng(0).choice(symbols, len(atoms))
    return atoms


def alone(function: str, name: str, side: str, folder: Path, options: argparse.Namespace) -> Any:
    """What one of the functions below prints of one side of a system, as JSON, in a process of its own."""
    if kind_of(options.device) == "cuda":
        torch.cuda.empty_cache()  # what this process no longer uses the other one may need
    return json.loads(in_own_process("systems", f"{function}({name!r}, {side!r}, {str(folder)!r}, {vars(options)!r})"))


def print_peak(name: str, side: str, folder: str, options: dict[str, Any]) -> None:
    """The peak of memory of a model, in kB per atom, when runs of three atoms had loaded all that has to be loaded."""
    atoms, arguments = structure(name), argparse.Namespace(**options)
    package, few = package_for(atoms, Path(folder)), atoms[:3]
    few.pbc = False
    small, sides = (Sides(a, package, [side], torch.float32, arguments) for a in (few, atoms))
    for _ in range(3):
        small.models()[side]()
    print(json.dumps(peak_memory(sides.models()[side], arguments.device) / len(atoms)))


def print_captured(name: str, side: str, folder: str, options: dict[str, Any]) -> None:
    """Times of a model as launched operation by operation and as one CUDA graph, or why it cannot be captured."""
    atoms, arguments = structure(name), argparse.Namespace(**options)
    sides = Sides(atoms, package_for(atoms, Path(folder)), [side], torch.float32, arguments)
    sides.model.validate = False  # its checks wait for values, which a graph cannot
    run = sides.models()[side]
    try:
        graph, found = captured(run)
    except RuntimeError as error:
        print(json.dumps({"failed": first_reason(error)}))
        return
    seconds = interleaved({"launched": run, "graph": graph.replay}, arguments.repeats, arguments.device)
    row = {name: summary(times) for name, times in seconds.items()}
    print(json.dumps(row | {"largest_difference": difference(found, run())}))


def first_reason(error: BaseException) -> str:
    """The first line of the error that others followed from: the end of a failed capture is an error too."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).splitlines()[0]


def captured(run: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A run as a CUDA graph, and the tensors that each replay writes anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what a graph holds is warmed up beside the default stream
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    return graph, found


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The power of the number of atoms that the times grow as, for each kind of box that has sizes enough."""
    found = []
    for kind in SERIES:
        series = [row for row in rows if row["system"].startswith(f"{kind}-")]
        sizes = [row["atoms"] for row in series]
        if len(set(sizes)) < SIZES_NEEDED:
            continue
        times = {
            "neighbours": [row["neighbours"]["median_ms"] for row in series],
            "model": [row["tensorgraph"]["median_ms"] for row in series],
            "step": [row["step_ms"] for row in series],
        }
        exponents = {part: growth_exponent(sizes, costs) for part, costs in times.items()}
        found.append({"case": "growth", "series": kind, "sizes": sizes, "exponent": exponents, "goal": GOAL})
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """One line per system, one per exponent, and one per CUDA graph."""
    systems = [row for row in rows if row["case"] != "growth"]
    peers = [peer for peer in ("hippynn", "mace") if any(peer in row for row in systems)]
    headings = ["atoms", "pairs\nper atom", "neighbours\nms", "model\nms", "step\nµs/atom", "memory\nkB/atom"]
    headings += [f"{peer}\n{unit}" for peer in peers for unit in ("ms", "ratio", "kB/atom")]
    table = Table("system", *(Column(heading, justify="right") for heading in headings))
    for row in systems:
        table.add_row(row["system"], *cells_of(row, peers))
    Console(width=140).print(table)
    for row in rows:
        if row["case"] == "growth":
            powers = ", ".join(f"{part} {power:.3f}" for part, power in row["exponent"].items())
            print(f"{row['series']}: seconds grow as atoms to the power: {powers} (goal {row['goal']})")
        elif "captured" in row:
            print(f"{row['system']} as a CUDA graph: {said_of_graph(row['captured'])}")


def cells_of(row: dict[str, Any], peers: list[str]) -> list[str]:
    """A system's line in the table; a ratio is how many times as long a peer takes as our model."""
    ours = [f"{row[part]['median_ms']:.1f}" for part in ("neighbours", "tensorgraph")]
    ours += [f"{row['us_per_atom']['step']:.2f}", f"{row['peak_kB_per_atom']['tensorgraph']:.0f}"]
    cells = [str(row["atoms"]), f"{row['pairs'] / row['atoms']:.0f}", *ours]
    for peer in peers:
        theirs = (row[peer]["median_ms"], row["ratio"][peer], row["peak_kB_per_atom"][peer]) if peer in row else ()
        cells += [f"{theirs[0]:.1f}", f"{theirs[1]:.1f}", f"{theirs[2]:.0f}"] if theirs else ["-"] * 3
    return cells


def said_of_graph(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"not captured: {found['failed']}"
    return f"{found['graph']['median_ms']:.3f} ms, launched {found['launched']['median_ms']:.3f} ms"


if __name__ == "__main__":
    main()
