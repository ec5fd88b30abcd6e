"""The command line. Results go to stdout, progress and errors to stderr.

Exit status: 0 done; 1 the package on disk differs, fails a check, or cannot be read or written; 2 the spec or the call
is wrong, or what the command needs is not installed.
"""

import io
import os
import sys
from collections.abc import Sequence

from tensorgraph.cli.arguments import parser
from tensorgraph.cli.output import fail
from tensorgraph.errors import INTERRUPTED, MissingToolError, SpecError, TensorGraphError

_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Raises SystemExit for `--help`, `--version` and a wrong call."""
    if sys.stdout is None:
        return fail("tensorgraph: the standard output is closed", 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign is no reason to fail
    try:
        arguments = parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except SpecError as error:
        return fail(str(error), 2)
    except MissingToolError as error:
        return fail(f"tensorgraph: {error}", 2)
    except TensorGraphError as error:
        return fail(f"tensorgraph: {error}", 1)
    except KeyboardInterrupt:
        return fail("tensorgraph: interrupted", INTERRUPTED)
    except OSError as error:  # of stdout: all files of a command have their own errors
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered must not fail at exit
        return _BROKEN_PIPE if isinstance(error, BrokenPipeError) else fail(f"tensorgraph: {error}", 1)
