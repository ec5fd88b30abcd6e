"""The command line. Results go to stdout, progress and errors to stderr.

Exit status: 0 done; 1 the package on disk differs, fails a check, or cannot be read or written; 2 the spec or the call
is wrong, or what the command needs is not installed.
"""

import argparse
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tensorgraph
from tensorgraph.atomic import obstacle, write_atomically
from tensorgraph.errors import BudgetError, CheckpointError, MissingToolError, SpecError, TensorGraphError, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tensorgraph.spec import Spec

Result = TypeVar("Result")

# Imports inside functions keep `--help` and `schema` from loading the compiler.

_PLAIN_WIDTH = 120  # of a table that goes to a file or a pipe
CHECKPOINT = ".safetensors"  # how the name of a file ends whose spec stands inside
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Raises SystemExit for `--help`, `--version` and a wrong call."""
    if sys.stdout is None:
        return _fail("tensorgraph: the standard output is closed", 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign is no reason to fail
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except SpecError as error:
        return _fail(str(error), 2)
    except MissingToolError as error:
        return _fail(f"tensorgraph: {error}", 2)
    except TensorGraphError as error:
        return _fail(f"tensorgraph: {error}", 1)
    except KeyboardInterrupt:
        return _fail("tensorgraph: interrupted", _INTERRUPTED)
    except OSError as error:  # of stdout: all files of a command have their own errors
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered must not fail at exit
        return _BROKEN_PIPE if isinstance(error, BrokenPipeError) else _fail(f"tensorgraph: {error}", 1)


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tensorgraph", description=tensorgraph.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tensorgraph {tensorgraph.__version__}")
    spec = f"a YAML file, or a checkpoint ({CHECKPOINT}) with the spec inside"
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = _command(commands, "build", _build, "write the package of a spec")
    build.add_argument("spec", metavar="SPEC", help=f"{spec}; `tensorgraph schema` says what a spec may hold")
    build.add_argument("--out", metavar="DIR", type=Path, default=Path("generated"),
                       help="where to write the package DIR/<name>/ (default: generated)")  # fmt: skip
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 if DIR holds anything else")

    show = _command(commands, "show", _show, "print the basis of a spec, and the orders of its layers")
    show.add_argument("spec", metavar="SPEC", help=spec)
    show.add_argument("--neighbours", metavar="N", type=int,
                      help="of an atom within the cutoff, for the cost of layers (default: as in water)")  # fmt: skip
    show.add_argument("--json", action="store_true", help="print one JSON document instead of a table")

    verify = _command(commands, "verify", _verify,
                      "try a potential: certificate, symmetries, derivatives, limits, dynamics")  # fmt: skip
    verify.add_argument("package", metavar="PACKAGE", type=Path,
                        help="the folder of a generated package, or a checkpoint alone")  # fmt: skip
    verify.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, nargs="?",
                        help="the weights of the package's model (default: Model(seed=0))")  # fmt: skip
    verify.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    verify.add_argument("--dtype", choices=("float64", "float32", "both"), default="both", help="default: both")
    verify.add_argument("--only", metavar="CHECK", action="append",
                        help="a check by name, such as forces; may be repeated (default: all)")  # fmt: skip
    verify.add_argument("--json", action="store_true", help="print one JSON document instead of a table")

    evaluate = _command(commands, "evaluate", _evaluate, "errors of a potential on labelled structures")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT",
                          help="a checkpoint, or the folder of a run (of a committee the mean)")  # fmt: skip
    evaluate.add_argument("data", metavar="DATA", nargs="+", help="files of structures, anything that ASE reads")
    evaluate.add_argument("--train", metavar="FILE", nargs="+",
                          help="what it was trained on: errors without those structures too")  # fmt: skip
    for name in ("energy", "forces", "stress", "virial"):
        evaluate.add_argument(f"--{name}-key", metavar="KEY", help=f"where the {name} stands (default: the usual keys)")
    evaluate.add_argument("--group-key", metavar="KEY", help="where the group stands (default: group, config_type)")
    evaluate.add_argument("--worst", metavar="N", type=int, default=5, help="structures listed (default: 5)")
    evaluate.add_argument("--pictures", metavar="DIR", type=Path, help="write parity.png and errors.png there")
    evaluate.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    evaluate.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="default: float64")
    evaluate.add_argument("--max-pairs", metavar="N", type=int, default=100_000,
                          help="evaluated at once, which bounds the memory (default: 100000)")  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print one JSON document instead of tables")

    atlas = _command(commands, "atlas", _atlas, "write a page with every graph of a spec's basis drawn")
    atlas.add_argument("spec", metavar="SPEC", help=spec)
    atlas.add_argument("--out", metavar="FILE.html", type=Path, required=True,
                       help="the file to write; one that stands there is replaced")  # fmt: skip

    kernels = _command(commands, "kernels", _kernels, "compile the kernels of a spec for absent GPUs: what they cost")
    kernels.add_argument("spec", metavar="SPEC", help=spec)
    kernels.add_argument("--arch", metavar="ARCH", action="append",
                         help="a target such as 90 (compute capability 9.0) or gfx942; may be repeated "
                              "(default: 80, 90, 100 and gfx942)")  # fmt: skip
    kernels.add_argument("--dtype", choices=("float32", "float64", "both"), default="both", help="default: both")
    kernels.add_argument("--channels", metavar="N", type=int, default=128, help="channels of an atom (default: 128)")
    kernels.add_argument("--only", choices=("invariants", "pairs"), help="the kernels of one operator (default: both)")
    kernels.add_argument("--json", action="store_true", help="print one JSON document instead of a table")

    hippynn = _command(commands, "import-hippynn", _import_hippynn,
                       "make a checkpoint of a state dict of hippynn 0.1.3 (HIP-NN or HIP-HOP-NN)")  # fmt: skip
    hippynn.add_argument("file", metavar="FILE", type=Path,
                         help="what torch.save(model.state_dict(), FILE) wrote, such as best_model.pt")  # fmt: skip
    hippynn.add_argument("--out", metavar="CHECKPOINT", type=Path, required=True, help="the file to write")
    target = hippynn.add_mutually_exclusive_group(required=True)
    target.add_argument("--spec", metavar="SPEC", help="the spec of the model; what does not match it is reported")
    target.add_argument("--cutoff", metavar="R", type=float,
                        help="without a spec: dist_hard_max in Å, which no state dict holds")  # fmt: skip
    hippynn.add_argument("--species", metavar="SYMBOLS",
                         help="without a spec: those of the input features in their order, such as H,C,N,O; "
                              "needed where the state dict is not one of a whole graph")  # fmt: skip
    hippynn.add_argument("--name", help="without a spec: the name of the one that is made (default: imported)")
    hippynn.add_argument("--energy-unit", metavar="UNIT", default="eV",
                         help="eV (default), Hartree, kcal/mol or kJ/mol; energies are converted to eV")  # fmt: skip

    _command(commands, "schema", _schema, "print the JSON Schema of specs, for editors")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    does: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=does, description=does, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _build(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import compile_spec
    from tensorgraph.emit.writing import check_package, write_package
    from tensorgraph.report import build_table

    spec = _load(arguments.spec)
    start = time.perf_counter()
    compilation = _within_budget(arguments.spec, lambda tell: compile_spec(spec, tell))
    if arguments.check:
        differences = check_package(compilation.package, arguments.out)
        for difference in differences:
            print(difference, file=sys.stderr)
        return 1 if differences else 0
    target = write_package(compilation.package, arguments.out)
    _print_table(build_table(compilation))
    print(target)
    print(f"built in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import derive_basis
    from tensorgraph.layer import plan_layers
    from tensorgraph.report import show_table

    if arguments.neighbours is not None and not 0 < arguments.neighbours < 10**6:
        return _fail(f"tensorgraph: --neighbours is {arguments.neighbours}; allowed: 1 to 999999", 2)
    spec = _load(arguments.spec)
    basis = _within_budget(arguments.spec, lambda tell: derive_basis(spec.basis, tell))
    layers = plan_layers(spec, arguments.neighbours)
    if arguments.json:
        print(json.dumps(basis.to_json() | {"layers": [plan.to_json() for plan in layers]}, indent=2))
    else:
        _print_table(show_table(basis, layers))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from tensorgraph.battery import NAMES, verify
    from tensorgraph.battery.table import verification_table
    from tensorgraph.runtime.arguments import DTYPES, checked_device

    if arguments.checkpoint is not None and arguments.package.is_file():
        return _fail(f"tensorgraph: {arguments.package} is a file, not the package of {arguments.checkpoint}", 2)
    if unknown := [name for name in arguments.only or () if name not in NAMES]:
        return _fail(f"tensorgraph: --only is {unknown[0]!r}; allowed: {', '.join(NAMES)}", 2)
    try:
        device = checked_device(arguments.device)
    except ValueError as error:
        return _fail(f"tensorgraph: --device: {error}", 2)
    dtypes = [DTYPES[name] for name in ("float64", "float32") if arguments.dtype in (name, "both")]
    start = time.perf_counter()
    with _progress() as tell:
        found = verify(arguments.package, arguments.checkpoint, device, dtypes, arguments.only or NAMES, tell)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        _print_table(verification_table(found))
    print(f"verified in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return 0 if found.passed else 1


def _evaluate(arguments: argparse.Namespace) -> int:
    from tensorgraph.evaluation.command import Request, evaluate_files
    from tensorgraph.evaluation.pictures import write_pictures
    from tensorgraph.evaluation.table import evaluation_table

    try:
        request = Request.of(arguments)
    except ValueError as error:
        return _fail(f"tensorgraph: {error}", 2)
    if arguments.pictures and os.path.lexists(arguments.pictures) and not arguments.pictures.is_dir():
        return _fail(f"tensorgraph: --pictures: {arguments.pictures} is no folder; allowed: one, or a new name", 2)
    start = time.perf_counter()
    with _progress() as tell, _warnings_in_lines():
        found = evaluate_files(request, tell)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        _print_table(evaluation_table(found))
    for path in write_pictures(found, arguments.pictures) if arguments.pictures else ():
        print(path, file=sys.stderr)
    print(f"evaluated in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


def _kernels(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import compile_spec
    from tensorgraph.kernels import DTYPES, OPERATORS, TARGETS, KernelStudy, Target, require_triton, study_kernels
    from tensorgraph.report import kernels_table

    if not 0 < arguments.channels < 2**31:
        return _fail(f"tensorgraph: --channels is {arguments.channels}; allowed: 1 to 2147483647", 2)
    try:
        targets = tuple(dict.fromkeys(map(Target.parse, arguments.arch))) if arguments.arch else TARGETS
    except ValueError as error:
        return _fail(f"tensorgraph: --arch: {error}", 2)
    dtypes = [dtype for dtype in DTYPES if arguments.dtype in (dtype.name, "both")]
    spec = _load(arguments.spec)
    require_triton()  # before the work, not after it

    def work(tell: Callable[[str], None]) -> KernelStudy:
        compilation = compile_spec(spec, tell)
        tell("kernels")
        operators = (arguments.only,) if arguments.only else OPERATORS
        return study_kernels(compilation, targets, dtypes, arguments.channels, operators)

    start = time.perf_counter()
    study = _within_budget(arguments.spec, work)
    if arguments.json:
        print(json.dumps(study.to_json(), indent=2))
    else:
        _print_table(kernels_table(study))
    print(f"compiled in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0 if any(cost.code for cost in study.kernels) else 1


def _atlas(arguments: argparse.Namespace) -> int:
    from tensorgraph.atlas import atlas_page
    from tensorgraph.compiler import compile_spec

    spec = _load(arguments.spec)
    _refuse_all_but_files(arguments.out)  # before the work, not after it
    start = time.perf_counter()
    compilation = _within_budget(arguments.spec, lambda tell: compile_spec(spec, tell))
    _write_file(arguments.out, atlas_page(compilation))
    print(arguments.out)
    print(f"drawn in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0


def _import_hippynn(arguments: argparse.Namespace) -> int:
    from tensorgraph.hippynn import import_hippynn

    given = {key: value for key in ("species", "name") if (value := getattr(arguments, key)) is not None}
    if arguments.spec is not None and given:
        return _fail(f"tensorgraph: --{' and --'.join(given)} beside --spec; allowed: beside --cutoff", 2)
    if "species" in given:
        given["species"] = tuple(given["species"].replace(",", " ").split())
    spec = None if arguments.spec is None else _load(arguments.spec)
    _refuse_all_but_files(arguments.out)
    options = {"cutoff": arguments.cutoff, "energy_unit": arguments.energy_unit, **given}
    imported = import_hippynn(arguments.file, arguments.out, spec, **options)
    print(arguments.out)
    print(f"{imported.to_yaml()}{_assumptions(imported, arguments.energy_unit)}", file=sys.stderr)
    return 0


def _assumptions(imported: "Spec", energy_unit: str) -> str:
    """What no state dict of hippynn says."""
    network = imported.network
    assert network is not None
    return (
        f"# Taken as given: energies are in {energy_unit}; lengths in Å, the cutoff {network.sensitivity.cutoff} Å; "
        f"activations are softplus; the epsilon of a group norm is 1e-5; input features stand for "
        f"{', '.join(network.species)} in this order, unless the file says their order."
    )


def _refuse_all_but_files(path: Path) -> None:
    if reason := obstacle(path):
        raise TensorGraphError(f"cannot write {path}: {reason}; allowed: a file, or a path where one can be made")


def _write_file(path: Path, text: str) -> None:
    try:
        write_atomically(text.encode(), path)
    except OSError as error:
        raise TensorGraphError(f"cannot write {path}: {error.strerror or error}") from error


def _schema(_arguments: argparse.Namespace) -> int:
    from tensorgraph.spec import spec_schema

    print(json.dumps(spec_schema(), indent=2))
    return 0


def _load(file: str) -> "Spec":
    """The spec in a YAML file, or the one inside a checkpoint."""
    if file.endswith(CHECKPOINT):
        from tensorgraph.potential import read_spec

        return read_spec(file)
    from tensorgraph.spec import load_spec

    return load_spec(file)


def _within_budget(file: str, work: Callable[[Callable[[str], None]], Result]) -> Result:
    """What `work` gives, its progress shown where stderr is a terminal.

    A basis too large to derive is a mistake in the spec, told with the line of its body order.
    """
    from tensorgraph.spec import line_of

    try:
        with _progress() as tell:
            return work(tell)
    except BudgetError as error:
        if file.endswith(CHECKPOINT):
            raise CheckpointError(f"{file}: {error}") from None
        raise SpecError(file, line_of(file, ("basis", "body_order")), str(error)) from None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What shows its argument on stderr, where that is a terminal, until it is given another."""
    from rich.console import Console

    with Console(stderr=True).status("…") as status:
        yield status.update


@contextmanager
def _warnings_in_lines() -> Iterator[None]:
    """Python's warnings, ASE's among them, as lines on stderr without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"tensorgraph: warning: {one_line(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _print_table(table: "RenderableType") -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(file=sys.stdout, width=width).print(table)
