"""The arguments of every command, and the function that runs it."""

import argparse
from collections.abc import Callable
from pathlib import Path

import tensorgraph
from tensorgraph.cli import commands
from tensorgraph.cli.output import CHECKPOINT


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tensorgraph", description=tensorgraph.__doc__, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"tensorgraph {tensorgraph.__version__}")
    spec = f"a YAML file, or a checkpoint ({CHECKPOINT}) with the spec inside"
    added = top.add_subparsers(required=True, metavar="COMMAND")

    build = _command(added, "build", commands.build, "write the package of a spec")
    build.add_argument("spec", metavar="SPEC", help=f"{spec}; `tensorgraph schema` says what a spec may hold")
    build.add_argument("--out", metavar="DIR", type=Path, default=Path("generated"),
                       help="where to write the package DIR/<name>/ (default: generated)")  # fmt: skip
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 if DIR holds anything else")

    refresh = _command(added, "refresh", commands.refresh,
                       "bring a package to the newest runtime; what was printed for its spec is unchanged")  # fmt: skip
    refresh.add_argument("package", metavar="PACKAGE", type=Path, help="the folder of a generated package")

    show = _command(added, "show", commands.show, "print the basis of a spec, and the orders of its layers")
    show.add_argument("spec", metavar="SPEC", help=spec)
    show.add_argument("--neighbours", metavar="N", type=int,
                      help="of an atom within the cutoff, for the cost of layers (default: as in water)")  # fmt: skip
    show.add_argument("--json", action="store_true", help="print one JSON document instead of a table")

    verify = _command(added, "verify", commands.verify,
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

    train = _command(added, "train", commands.train, "train a potential on labelled structures")
    train.add_argument("config", metavar="CONFIG", help="a YAML file; docs/training.md says what it may hold")
    train.add_argument("--resume", action="store_true", help="go on from the state that stands in the config's `out`")
    train.add_argument("--overwrite", action="store_true", help="replace the run that stands in the config's `out`")

    sweep = _command(added, "sweep", commands.sweep, "train a grid of potentials: errors against time per step")
    sweep.add_argument("config", metavar="CONFIG", help="a YAML file; docs/sweeping.md says what it may hold")
    sweep.add_argument("--resume", action="store_true", help="keep what is finished in the config's `out`, and go on")
    sweep.add_argument("--overwrite", action="store_true", help="replace the sweep that stands in the config's `out`")
    sweep.add_argument("--json", action="store_true", help="print one JSON document instead of a table")

    evaluate = _command(added, "evaluate", commands.evaluate, "errors of a potential on labelled structures")
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

    atlas = _command(added, "atlas", commands.atlas, "write a page with every graph of a spec's basis drawn")
    atlas.add_argument("spec", metavar="SPEC", help=spec)
    atlas.add_argument("--out", metavar="FILE.html", type=Path, required=True,
                       help="the file to write; one that stands there is replaced")  # fmt: skip

    kernels = _command(
        added, "kernels", commands.kernels, "compile the kernels of a spec for absent GPUs: what they cost"
    )
    kernels.add_argument("spec", metavar="SPEC", help=spec)
    kernels.add_argument("--arch", metavar="ARCH", action="append",
                         help="a target such as 90 (compute capability 9.0) or gfx942; may be repeated "
                              "(default: 80, 90, 100 and gfx942)")  # fmt: skip
    kernels.add_argument("--dtype", choices=("float32", "float64", "both"), default="both", help="default: both")
    kernels.add_argument("--channels", metavar="N", type=int, default=128, help="channels of an atom (default: 128)")
    kernels.add_argument("--only", choices=("invariants", "pairs"), help="the kernels of one operator (default: both)")
    kernels.add_argument("--json", action="store_true", help="print one JSON document instead of a table")

    hippynn = _command(added, "import-hippynn", commands.import_hippynn,
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

    schema = _command(added, "schema", commands.schema, "print the JSON Schema of specs or of configs, for editors")
    schema.add_argument("of", metavar="OF", nargs="?", choices=("spec", "train"), default="spec",
                        help="spec (default), or train: the config of `tensorgraph train`")  # fmt: skip
    return top


def _command(
    added: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    does: str,
) -> argparse.ArgumentParser:
    parser = added.add_parser(name, help=does, description=does, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser
