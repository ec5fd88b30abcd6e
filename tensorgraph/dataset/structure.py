"""A structure with its labels, and where both come from."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from tensorgraph.model.labels import Labels


@dataclass(frozen=True)
class Origin:
    """Where a structure stands: a file, as it was named, and the number of the frame in it, from 0 as ASE's indices."""

    file: str
    frame: int

    def __str__(self) -> str:
        return f"{self.file}, frame {self.frame}"


@dataclass(frozen=True)
class LabelledStructure:
    """A structure without a calculator, its labels (None where it lacks one), and where it comes from.

    `group` is what the file says of its kind: `info["group"]`, else `info["config_type"]`, or another key.
    """

    atoms: Atoms
    labels: Labels
    origin: Origin
    group: str | None = None
