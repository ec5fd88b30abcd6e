"""What each command does: a function of its arguments that returns the exit status.

Imports inside functions keep `--help` and `schema` from loading the compiler.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tensorgraph.atomic import write_file
from tensorgraph.cli.output import (
    fail,
    load,
    print_table,
    progress,
    refuse_all_but_files,
    warnings_in_lines,
    within_budget,
)

if TYPE_CHECKING:
    from tensorgraph.spec import Spec


def build(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import compile_spec
    from tensorgraph.emit.writing import check_package, write_package
    from tensorgraph.reports.tables import build_table

    spec = load(arguments.spec)
    start = time.perf_counter()
    compilation = within_budget(arguments.spec, lambda tell: compile_spec(spec, tell))
    if arguments.check:
        differences = check_package(compilation.package, arguments.out)
        for difference in differences:
            print(difference, file=sys.stderr)
        return 1 if differences else 0
    target = write_package(compilation.package, arguments.out)
    print_table(build_table(compilation))
    print(target)
    print(f"built in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0


def refresh(arguments: argparse.Namespace) -> int:
    from tensorgraph.emit.runtime import refresh_package

    if refresh_package(arguments.package):
        print(arguments.package)
    else:
        print(f"{arguments.package} has the newest runtime: nothing to do", file=sys.stderr)
    return 0


def show(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import derive_bases
    from tensorgraph.network.orders import plan_layers
    from tensorgraph.reports.tables import show_table
    from tensorgraph.spec import Spec

    if arguments.neighbours is not None and not 0 < arguments.neighbours < 10**6:
        return fail(f"tensorgraph: --neighbours is {arguments.neighbours}; allowed: 1 to 999999", 2)
    spec = load(arguments.spec)
    basis, *later = within_budget(arguments.spec, lambda tell: derive_bases(spec, tell))
    layers = plan_layers(spec, arguments.neighbours) if isinstance(spec, Spec) else ()
    if arguments.json:
        more = {"later_layers": [one.to_json() for one in later]} if later else {}
        print(json.dumps(basis.to_json() | {"layers": [plan.to_json() for plan in layers]} | more, indent=2))
    else:
        print_table(show_table(basis, layers))
        for one in later:
            print_table(show_table(one))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    from tensorgraph.battery import NAMES, verify
    from tensorgraph.battery.table import verification_table
    from tensorgraph.neighbours.arguments import DTYPES, checked_device

    if arguments.checkpoint is not None and arguments.package.is_file():
        return fail(f"tensorgraph: {arguments.package} is a file, not the package of {arguments.checkpoint}", 2)
    if unknown := [name for name in arguments.only or () if name not in NAMES]:
        return fail(f"tensorgraph: --only is {unknown[0]!r}; allowed: {', '.join(NAMES)}", 2)
    try:
        device = checked_device(arguments.device)
    except ValueError as error:
        return fail(f"tensorgraph: --device: {error}", 2)
    dtypes = [DTYPES[name] for name in ("float64", "float32") if arguments.dtype in (name, "both")]
    start = time.perf_counter()
    with progress() as tell:
        found = verify(arguments.package, arguments.checkpoint, device, dtypes, arguments.only or NAMES, tell)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print_table(verification_table(found))
    print(f"verified in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return 0 if found.passed else 1


def train(arguments: argparse.Namespace) -> int:
    from tensorgraph.training.command import train_and_report

    if arguments.resume and arguments.overwrite:
        return fail("tensorgraph: --resume beside --overwrite; allowed: one of them", 2)
    with warnings_in_lines():
        return train_and_report(arguments.config, arguments.resume, arguments.overwrite, print_table)


def sweep(arguments: argparse.Namespace) -> int:
    from tensorgraph.sweep.command import sweep_and_report

    if arguments.resume and arguments.overwrite:
        return fail("tensorgraph: --resume beside --overwrite; allowed: one of them", 2)
    with warnings_in_lines():
        return sweep_and_report(arguments.config, arguments.resume, arguments.overwrite, arguments.json, print_table)


def evaluate(arguments: argparse.Namespace) -> int:
    from tensorgraph.evaluation.command import Request, evaluate_files
    from tensorgraph.evaluation.pictures import write_pictures
    from tensorgraph.evaluation.result import evaluation_table

    try:
        request = Request.of(arguments)
    except ValueError as error:
        return fail(f"tensorgraph: {error}", 2)
    if arguments.pictures and os.path.lexists(arguments.pictures) and not arguments.pictures.is_dir():
        return fail(f"tensorgraph: --pictures: {arguments.pictures} is no folder; allowed: one, or a new name", 2)
    start = time.perf_counter()
    with progress() as tell, warnings_in_lines():
        found = evaluate_files(request, tell)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print_table(evaluation_table(found))
    for path in write_pictures(found, arguments.pictures) if arguments.pictures else ():
        print(path, file=sys.stderr)
    print(f"evaluated in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


def kernels(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import compile_spec
    from tensorgraph.kernel_study import DTYPES, OPERATORS, TARGETS, KernelStudy, Target, require_triton, study_kernels
    from tensorgraph.reports.tables import kernels_table

    if not 0 < arguments.channels < 2**31:
        return fail(f"tensorgraph: --channels is {arguments.channels}; allowed: 1 to 2147483647", 2)
    try:
        targets = tuple(dict.fromkeys(map(Target.parse, arguments.arch))) if arguments.arch else TARGETS
    except ValueError as error:
        return fail(f"tensorgraph: --arch: {error}", 2)
    dtypes = [dtype for dtype in DTYPES if arguments.dtype in (dtype.name, "both")]
    spec = load(arguments.spec)
    require_triton()  # before the work, not after it

    def work(tell: Callable[[str], None]) -> KernelStudy:
        compilation = compile_spec(spec, tell)
        tell("kernels")
        operators = (arguments.only,) if arguments.only else OPERATORS
        return study_kernels(compilation, targets, dtypes, arguments.channels, operators)

    start = time.perf_counter()
    study = within_budget(arguments.spec, work)
    if arguments.json:
        print(json.dumps(study.to_json(), indent=2))
    else:
        print_table(kernels_table(study))
    print(f"compiled in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0 if any(cost.code for cost in study.kernels) else 1


def atlas(arguments: argparse.Namespace) -> int:
    from tensorgraph.compiler import compile_spec
    from tensorgraph.reports import atlas_page

    spec = load(arguments.spec)
    refuse_all_but_files(arguments.out)  # before the work, not after it
    start = time.perf_counter()
    compilation = within_budget(arguments.spec, lambda tell: compile_spec(spec, tell))
    write_file(atlas_page(compilation), arguments.out)
    print(arguments.out)
    print(f"drawn in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0


def import_hippynn(arguments: argparse.Namespace) -> int:
    from tensorgraph.hippynn import import_hippynn
    from tensorgraph.spec import GeneralSpec

    given = {key: value for key in ("species", "name") if (value := getattr(arguments, key)) is not None}
    if arguments.spec is not None and given:
        return fail(f"tensorgraph: --{' and --'.join(given)} beside --spec; allowed: beside --cutoff", 2)
    if "species" in given:
        given["species"] = tuple(given["species"].replace(",", " ").split())
    spec = None if arguments.spec is None else load(arguments.spec)
    if isinstance(spec, GeneralSpec):
        return fail(f"tensorgraph: {arguments.spec} has layers; allowed: a spec with basis and network", 2)
    refuse_all_but_files(arguments.out)
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


def schema(arguments: argparse.Namespace) -> int:
    if arguments.of == "spec":
        from tensorgraph.spec import spec_schema as wanted
    else:
        from tensorgraph.training.config import config_schema as wanted
    print(json.dumps(wanted(), indent=2))
    return 0
