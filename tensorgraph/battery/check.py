"""The result of one check of a potential."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """What one check measured, in which unit, and the largest value that passes.

    `where` says where the worst value was seen, or what else is wrong. A check that does not apply, or whose tool is
    not installed, is skipped: it measured nothing, and `where` has the reason.
    """

    name: str
    measured: float | None
    bound: float | None
    unit: str = ""
    where: str = ""

    @property
    def skipped(self) -> bool:
        """Whether nothing was measured."""
        return self.measured is None

    @property
    def passed(self) -> bool:
        """Whether what was measured is within the bound; NaN is not."""
        return self.measured is None or (self.bound is not None and self.measured <= self.bound)

    def to_json(self) -> dict[str, Any]:
        """All fields, and whether the check passed; JSON has no other word for what is not finite than text."""
        fields = asdict(self) | {"passed": self.passed, "skipped": self.skipped}
        if self.measured is not None and not math.isfinite(self.measured):
            fields["measured"] = str(self.measured)
        return fields


def worst(name: str, found: dict[str, float], bound: float, unit: str = "") -> Check:
    """The check of the largest of several values, by what it was found for; NaN counts as the largest."""
    where = max(found, key=lambda key: (found[key] != found[key], found[key]))
    return Check(name, found[where], bound, unit, where)
