"""What an evaluation finds: its errors, as values, as JSON and as tables for people."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tensorgraph.evaluation.metrics import Metrics, Predicted

WIDTH = 120


@dataclass(frozen=True)
class WorstStructure:
    """A structure with a large error.

    `energy_mev_per_atom` is signed, predicted minus true; `force_rms_ev_per_angstrom` is over all components, and
    `force_max_ev_per_angstrom` the length of the largest error vector, of the atom `force_atom`. None without labels.
    """

    file: str
    frame: int
    n_atoms: int
    group: str | None
    energy_mev_per_atom: float | None
    force_rms_ev_per_angstrom: float | None
    force_max_ev_per_angstrom: float | None
    force_atom: int | None


@dataclass(frozen=True)
class Evaluation:
    """Errors of a potential, or of the mean of a committee; prints as a table.

    `groups` has the errors of each group by name, and under None those of structures without one; it is empty where no
    structure carries a group. `in_training` are the indices of predictions whose structure stands in the training set,
    and `without_training` the errors without them; both are None where no training set was given.
    """

    checkpoint: str
    members: tuple[str, ...]
    device: str
    dtype: str
    total: Metrics
    groups: tuple[tuple[str | None, Metrics], ...]
    worst_energy: tuple[WorstStructure, ...]
    worst_forces: tuple[WorstStructure, ...]
    in_training: tuple[int, ...] | None
    without_training: Metrics | None
    predictions: tuple[Predicted, ...]

    def __str__(self) -> str:
        return evaluation_text(self)

    def to_json(self) -> dict[str, Any]:
        """What `tensorgraph evaluate --json` prints: numbers without NaN, null where there are no labels."""
        return {
            "checkpoint": self.checkpoint,
            "members": list(self.members),
            "device": self.device,
            "dtype": self.dtype,
            **self.total.to_json(),
            "groups": [{"group": name, **metrics.to_json()} for name, metrics in self.groups],
            "worst": {
                "energy": [asdict(one) for one in self.worst_energy],
                "forces": [asdict(one) for one in self.worst_forces],
            },
            "n_in_training_set": None if self.in_training is None else len(self.in_training),
            "without_training_set": None if self.without_training is None else self.without_training.to_json(),
        }


def evaluation_text(found: Evaluation) -> str:
    """The tables as plain text."""
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(evaluation_table(found))
    return out.getvalue().rstrip("\n")


def evaluation_table(found: Evaluation) -> RenderableType:
    """All errors, those without structures of the training set, by group, and the worst structures."""
    what = f"the mean of {len(found.members)} potentials in" if len(found.members) > 1 else "errors of"
    size = f"{found.total.n_structures} structures, {found.total.n_atoms} atoms"
    parts: list[RenderableType] = [errors_table(found.total, f"{what} {found.checkpoint} ({found.dtype}): {size}")]
    if found.without_training is not None and found.in_training:
        count = len(found.in_training)
        size = f"{found.without_training.n_structures} structures, {found.without_training.n_atoms} atoms"
        parts.append(errors_table(found.without_training, f"without the {count} in the training set: {size}"))
    elif found.in_training is not None:
        parts.append(Text("no structure stands in the training set"))
    if found.groups:
        parts.append(_groups_table(found))
    if found.worst_energy:
        parts.append(_worst_table("largest errors of energies", found.worst_energy))
    if found.worst_forces:
        parts.append(_worst_table("largest errors of forces", found.worst_forces))
    return Group(*(row for part in parts for row in (part, Text(""))))


def errors_table(metrics: Metrics, title: str) -> RenderableType:
    """A row for each quantity, with its unit and what it is a mean over; a label that no structure has gets none."""
    table = _table("", "MAE", "RMSE", "largest", "unit", "over", left=(0, 4, 5))
    if energy := metrics.energy:
        over = f"{energy.n_structures} structures"
        per_atom = energy.mae_mev_per_atom, energy.rmse_mev_per_atom, energy.max_mev_per_atom
        table.add_row("energy per atom", *map(short, per_atom), "meV/atom", over)
        table.add_row("energy", *map(short, (energy.mae_mev, energy.rmse_mev, energy.max_mev)), "meV", over)
    if forces := metrics.forces:
        components = forces.mae_ev_per_angstrom, forces.rmse_ev_per_angstrom, forces.max_ev_per_angstrom
        norms = forces.norm_mean_ev_per_angstrom, forces.norm_rms_ev_per_angstrom, forces.norm_max_ev_per_angstrom
        table.add_row("force components", *map(short, components), "eV/Å", f"{forces.n_components} components")
        table.add_row("length of force errors", *map(short, norms), "eV/Å", f"{forces.n_atoms} atoms")
        if forces.relative_magnitude_error is not None and forces.angle_degrees is not None:
            over = f"{forces.n_directed} atoms above {forces.directed_above_ev_per_angstrom:g} eV/Å"
            table.add_row("size of forces", short(100 * forces.relative_magnitude_error), "", "", "%", over)
            table.add_row("angle between forces", short(forces.angle_degrees), "", "", "degrees", over)
    if stress := metrics.stress:
        over = f"{stress.n_components} components"
        table.add_row("stress", *map(short, (stress.mae_gpa, stress.rmse_gpa, stress.max_gpa)), "GPa", over)
        ours = stress.mae_ev_per_cubic_angstrom, stress.rmse_ev_per_cubic_angstrom, stress.max_ev_per_cubic_angstrom
        table.add_row("", *map(short, ours), "eV/Å³", over)
    return _titled(title, table)


def _groups_table(found: Evaluation) -> RenderableType:
    headings = ["group", "structures", "E MAE, meV/atom", "E RMSE", "F MAE, eV/Å", "F RMSE"]
    with_stress = found.total.stress is not None
    table = _table(*headings, *(["stress RMSE, GPa"] if with_stress else []))
    for name, metrics in found.groups:
        energy, forces, stress = metrics.energy, metrics.forces, metrics.stress
        cells = [
            *([short(energy.mae_mev_per_atom), short(energy.rmse_mev_per_atom)] if energy else ["", ""]),
            *([short(forces.mae_ev_per_angstrom), short(forces.rmse_ev_per_angstrom)] if forces else ["", ""]),
            *([short(stress.rmse_gpa) if stress else ""] if with_stress else []),
        ]
        table.add_row(Text("(none)" if name is None else name), str(metrics.n_structures), *cells)
    return _titled("by group", table)


def _worst_table(title: str, worst: tuple[WorstStructure, ...]) -> RenderableType:
    table = _table("structure", "atoms", "group", "E, meV/atom", "F RMSE, eV/Å", "largest", "at atom", left=(0, 2))
    for one in worst:
        energy = one.energy_mev_per_atom
        signed = "" if energy is None else f"{'+' if energy > 0 else ''}{short(energy)}"
        sizes = (one.force_rms_ev_per_angstrom, one.force_max_ev_per_angstrom)
        forces = ["" if size is None else short(size) for size in sizes]
        atom = "" if one.force_atom is None else str(one.force_atom)
        name = Text(f"{one.file}, frame {one.frame}")
        table.add_row(name, str(one.n_atoms), Text(one.group or ""), signed, *forces, atom)
    return _titled(title, table)


def _titled(title: str, table: Table) -> Group:
    """With the title on a line of its own, which the width of the table does not break."""
    return Group(Text(title, style="bold", no_wrap=True, overflow="ignore"), table)


def _table(*headings: str, left: tuple[int, ...] = (0,)) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index in left else "right", overflow="fold")
    return table


def short(value: float) -> str:
    """Three digits, without an exponent where numbers are of everyday size."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        digits = 3 if value == 0 else max(0, 2 - int(f"{value:.2e}".split("e")[1]))
        return f"{value:.{digits}f}"
    return f"{value:.2e}"
