"""Every error that a user of tensorgraph can cause.

Each says in one line what is wrong and what is allowed, so that the command line can print it as it stands.
"""

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C or SIGTERM ended."""


def one_line(text: str) -> str:
    """`text` with line breaks and other unprintable characters escaped, so that it prints as exactly one line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class TensorGraphError(Exception):
    """Base of all errors that tensorgraph raises on purpose."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class SpecError(TensorGraphError):
    """A spec is wrong: `file`, `line` (from 1) and `message`.

    Prints as `FILE:LINE: what is wrong; allowed: what is allowed`.
    """

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(file, line, message)  # all three, so that the error survives pickling
        self.file = file
        self.line = line
        self.message = message

    def __str__(self) -> str:
        return one_line(f"{self.file}:{self.line}: {self.message}")


class BudgetError(TensorGraphError):
    """A basis, or the proof of it, would need more time or memory than is feasible."""


class BasisError(TensorGraphError):
    """A basis would hold no graph at all, or none for an output that is asked for."""


class PackageError(TensorGraphError):
    """A generated package is missing, is not one of ours, or cannot be read or written."""


class StructureError(TensorGraphError, ValueError):
    """Atoms that a potential cannot take: the message says which atom and why."""


class TrainingError(TensorGraphError):
    """A training cannot start, go on or end as asked."""


class DataError(TensorGraphError):
    """A file of structures cannot be read, or changed while it was read; the message says which file and frame."""


class CheckpointError(TensorGraphError):
    """A checkpoint is unreadable, or belongs to another spec."""


class KernelError(TensorGraphError):
    """Kernels cannot be compiled ahead of time, or what the compiler made of them cannot be read."""


class MissingToolError(KernelError):
    """A command needs a package that is not installed; the message says what to install."""
