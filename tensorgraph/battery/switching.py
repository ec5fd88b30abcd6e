"""Which programs run behind a package's operators: those in C, plain PyTorch, or what stands in for them.

Packages share their operators where their code is equal: those of the one that was imported first. So every imported
copy of the runtime is switched, for the whole process, until the context ends.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest.mock import patch

Dispatch = Callable[[str, str, ModuleType, tuple[Any, ...], Callable[[], Any]], Any]
"""What runs a program: see `dispatch` in `runtime/operators.py`."""


@dataclass
class Ran:
    """Which programs were asked for, and whether each of them ran compiled."""

    programs: dict[str, bool] = field(default_factory=dict)

    def note(self, source: object, name: str, compiled: bool) -> None:
        """A call of the program `name` of `source`, which prints as the name of its file."""
        key = f"{name} of {source}"
        self.programs[key] = compiled and self.programs.get(key, True)

    @property
    def missing(self) -> str:
        """Those that did not run compiled."""
        return ", ".join(sorted(name for name, compiled in self.programs.items() if not compiled))

    @property
    def why_not(self) -> str:
        """Why no program can run compiled here; empty where they could, so that one which does not is a fault."""
        if not self.programs:
            return "the model runs no program of its package"
        if os.environ.get("TENSORGRAPH_CPU") == "pytorch":
            return "TENSORGRAPH_CPU=pytorch"
        chosen = os.environ.get("CC", "").split()[:1] or ["cc", "gcc", "clang"]
        return "" if any(map(shutil.which, chosen)) else "no C compiler"


@contextmanager
def c_programs(allowed: bool = True) -> Iterator[Ran]:
    """The programs in C, as far as there are any; plain PyTorch in their place where they are not allowed."""
    ran = Ran()

    def noting(run: Callable[..., bool]) -> Callable[..., bool]:
        def noted(source: object, name: str, *arguments: Any, **macros: int) -> bool:
            compiled = allowed and run(source, name, *arguments, **macros)
            ran.note(source, name, compiled)
            return compiled

        return noted

    with ExitStack() as stack:
        for native in runtime_modules("native"):
            stack.enter_context(patch.object(native, "run", noting(native.run)))
        yield ran


@contextmanager
def programs_by(stand_in: Callable[[Dispatch], Dispatch]) -> Iterator[None]:
    """What the stand-in makes of the runtime's own `dispatch` runs all programs."""
    with ExitStack() as stack:
        for module in runtime_modules():
            if hasattr(module, "dispatch") and not module.__name__.endswith(".operators"):
                stack.enter_context(patch.object(module, "dispatch", stand_in(module.dispatch)))
        yield


def runtime_modules(name: str = "") -> list[ModuleType]:
    """The modules, or those of a name, of all copies of the runtime that are imported: of packages, and our own."""
    found = {full: re.search(r"(?:\._|^tensorgraph\.)runtime\.(\w+)$", full) for full in list(sys.modules)}
    return [sys.modules[full] for full, match in found.items() if match and name in ("", match[1])]
