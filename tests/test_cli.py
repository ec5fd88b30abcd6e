"""The command line: what goes to stdout, what to stderr, and with which exit status."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

import tensorgraph
from tensorgraph import battery, cli
from tensorgraph.errors import BudgetError, CheckpointError, PackageError
from tensorgraph.model.checkpoint import save_checkpoint
from tensorgraph.model.loading import load_package
from tensorgraph.spec import load_spec, spec_schema

ROOT = Path(__file__).parents[1]
SMALL = "name: small1\nbasis:\n  family: hiphop\n  body_order: 3\n  max_rank: 1\nnetwork: {species: [H], features: 2}\n"


def run(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tensorgraph", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small1.yaml"
    path.write_text(SMALL)
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for option, expected in (("--version", tensorgraph.__version__), ("--help", "build"), ("-h", "schema")):
        with pytest.raises(SystemExit) as stopped:
            cli.main([option])
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    "call",
    [
        [],
        ["atlas"],
        ["build"],
        ["show", "a", "b"],
        ["build", "a", "--chec"],
        ["schema", "x"],
        ["schema", "spec", "train"],
    ],
)
def test_a_wrong_call_exits_with_2(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(call)
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("usage: tensorgraph")


def test_schema_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == spec_schema()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("name: [", 1, "this is not YAML"),
        ("name: a1\nbasis: {family: cubic, body_order: 5, max_rank: 3}\n", 2, "`basis.family` is 'cubic'; allowed: "),
        (
            "name: a1\nbasis: {family: hiphop, body_order: all, max_rank: 3}\n",
            2,
            "`basis.body_order` is 'all'",
        ),
        ("name: a1\ncolour: red\n", 2, "unknown key 'colour'; allowed: name, basis, network"),
        ("name: os.system('x')\n", 1, "`name` is "),
        (SMALL.replace("[H]", "['H\"]; import os #']"), 6, "`network.species[0]` is "),
    ],
)
@pytest.mark.parametrize(
    "command", [["build"], ["build", "--check"], ["show"], ["show", "--json"], ["kernels"]], ids=" ".join
)
def test_a_bad_spec_is_one_line_on_stderr(
    command: list[str], text: str, line: int, message: str, spec: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("tensorgraph.compiler")
    monkeypatch.chdir(spec.parent)
    spec.write_text(text)
    assert cli.main([*command, "small1.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"small1.yaml:{line}: {message}")
    assert captured.err.count("\n") == 1
    assert os.listdir() == ["small1.yaml"]


def test_a_missing_spec_is_one_line(tmp_path: Path) -> None:
    done = run("show", "none.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "none.yaml:1: there is no such file; allowed: the path of a YAML file\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (PackageError("out is\nfull"), 1, "tensorgraph: out is\\nfull\n"),
        (CheckpointError("other spec"), 1, "tensorgraph: other spec\n"),
        (BudgetError("5 million graphs; allowed: 1 million"), 2, "{spec}:4: 5 million graphs; allowed: 1 million\n"),
        (KeyboardInterrupt(), 130, "tensorgraph: interrupted\n"),
    ],
)
def test_errors_of_the_compiler_are_one_line(
    error: BaseException, status: int, line: str, spec: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("tensorgraph.compiler.derive_basis", fail)
    assert cli.main(["show", str(spec)]) == status
    captured = capsys.readouterr()
    assert captured.err == line.format(spec=spec)
    assert captured.out == ""


def test_build_writes_the_package_and_check_agrees(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = spec.parent / "out"
    assert cli.main(["build", str(spec), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith(f"{out}/small1\n")
    assert captured.err.startswith("built in ")
    manifest = json.loads((out / "small1" / "manifest.json").read_text())
    assert manifest["name"] == "small1"
    assert manifest["spec_digest"] == load_spec(spec).digest
    assert sorted(manifest["files"]) == sorted(snapshot(out / "small1"))
    assert load_spec(out / "small1" / "spec.yaml") == load_spec(spec)
    assert cli.main(["build", str(spec), "--out", str(out), "--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_check_writes_nothing_and_names_differences(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = spec.parent / "out"
    call = ["build", str(spec), "--check", "--out", str(out)]
    assert cli.main(call) == 1
    assert capsys.readouterr() == ("", f"{out}/small1: missing, the package was never built\n")
    assert not out.exists()
    assert cli.main(["build", str(spec), "--out", str(out)]) == 0
    (out / "small1" / "__init__.py").write_text("changed\n")
    before = snapshot(out)
    capsys.readouterr()
    assert cli.main(call) == 1
    assert capsys.readouterr() == ("", f"{out}/small1/__init__.py: differs at line 1\n")
    assert snapshot(out) == before


def test_a_bad_spec_leaves_the_earlier_package(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = spec.parent / "out"
    assert cli.main(["build", str(spec), "--out", str(out)]) == 0
    before = snapshot(out)
    spec.write_text(SMALL.replace("max_rank: 1", "max_rank: 9"))
    assert cli.main(["build", str(spec), "--out", str(out)]) == 2
    assert snapshot(out) == before
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{spec}:5: `basis.max_rank` is 9")


def test_foreign_files_stop_a_build(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spec.parent / "small1").mkdir()
    (spec.parent / "small1" / "thesis.tex").write_text("mine")
    assert cli.main(["build", str(spec), "--out", str(spec.parent)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"tensorgraph: {spec.parent}/small1 is no package of tensorgraph")
    assert captured.err.count("\n") == 1
    assert (spec.parent / "small1" / "thesis.tex").read_text() == "mine"


def test_two_hash_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    spec = tmp_path / "gold5.yaml"
    spec.write_text((ROOT / "specs" / "gold.yaml").read_text("utf-8").replace("name: gold", "name: gold5"))
    outs = [tmp_path / seed for seed in ("0", "4242")]
    for out in outs:
        done = run("build", spec, "--out", out, PYTHONHASHSEED=out.name)
        assert done.returncode == 0, done.stderr
    assert snapshot(outs[0]) == snapshot(outs[1])
    assert not any(str(tmp_path).encode() in content for content in snapshot(outs[0]).values())


def test_a_build_killed_at_any_time_leaves_a_whole_package(spec: Path) -> None:
    out = spec.parent / "out"
    call = [sys.executable, "-m", "tensorgraph", "build", str(spec), "--out", str(out)]
    assert run("build", spec, "--out", out).returncode == 0
    before = snapshot(out)
    (spec.parent / "other").mkdir()
    spec.write_text(SMALL.replace("features: 2", "features: 3"))
    for delay in (0.3, 0.6, 1.2):
        build = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        build.kill()
        assert build.wait() in (0, -signal.SIGKILL)
        found = snapshot(out / "small1")
        if found != {path.removeprefix("small1/"): content for path, content in before.items()}:
            assert run("build", spec, "--out", out, "--check").returncode == 0


def test_show_json_is_the_basis_of_the_manifest(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(spec), "--json"]) == 0
    captured = capsys.readouterr()
    basis = json.loads(captured.out)
    layers = basis.pop("layers")
    assert captured.err == ""
    assert {key: basis[key] for key in ("family", "body_order", "max_rank")} == {
        "family": "hiphop",
        "body_order": 3,
        "max_rank": 1,
    }
    assert [invariant["ranks"] for invariant in basis["invariants"]] == [[0], [1, 1]]
    assert [(layer["term"]["features"], len(layer["orders"])) for layer in layers] == [(1, 15), (2, 15)]
    assert cli.main(["build", str(spec), "--out", str(spec.parent / "out")]) == 0
    assert json.loads((spec.parent / "out" / "small1" / "manifest.json").read_text())["basis"] == basis


def test_show_tells_the_orders_of_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "specs/hiphop5.yaml", "--neighbours", "70"]) == 0
    shown = capsys.readouterr().out
    assert "neighbours first, chosen" in shown
    assert "weights first, chosen" in shown
    assert "1000 atoms with 70 neighbours" in shown
    assert cli.main(["show", "specs/hiphop5.yaml", "--neighbours", "0"]) == 2
    assert "--neighbours is 0; allowed: 1 to 999999" in capsys.readouterr().err


def test_show_prints_a_table_and_writes_nothing(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("show", spec, cwd=spec.parent)
    assert done.returncode == 0
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert os.listdir(spec.parent) == ["small1.yaml"]
    assert run("show", spec, cwd=spec.parent, PYTHONIOENCODING="ascii").returncode == 0


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = "import sys; from tensorgraph.cli import main; sys.exit(main(['schema']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tensorgraph", "schema"], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"tensorgraph: [Errno 28] No space left on device\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_in_the_header_rebuilds_the_package(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "generated" / "hiphop4", tmp_path / "hiphop4", ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(tmp_path / "hiphop4")
    command = re.findall(r"`tensorgraph (build .*)`", before["__init__.py"].decode())
    assert len(command) == 1
    assert run(*command[0].split(), cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "hiphop4") == before
    assert run(*command[0].split(), "--check", cwd=tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["hiphop4"]


def test_verify_accepts_what_was_built_and_rejects_what_was_changed(tmp_path: Path) -> None:
    package = tmp_path / "flexible5"
    shutil.copytree(ROOT / "generated" / "flexible5", package, ignore=shutil.ignore_patterns("__pycache__"))
    accepted = run("verify", package, "--only", "certificate", "--dtype", "float64")
    assert accepted.returncode == 0
    assert accepted.stdout.count("ok") == 7  # with the symmetry of the invariants
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["basis"]["certificate"]["strata"][-1]["minor"]["value"] += 1
    (package / "manifest.json").write_text(json.dumps(manifest))
    rejected = run("verify", package, "--only", "certificate", "--json")
    assert rejected.returncode == 1
    report = json.loads(rejected.stdout)
    assert not report["passed"]
    assert [check["passed"] for check in report["checks"]].count(False) == 1


def test_verify_takes_a_package_with_a_checkpoint_or_a_checkpoint_alone(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, weights = spec.parent / "small1", spec.parent / "model.safetensors"
    assert cli.main(["build", str(spec), "--out", str(spec.parent)]) == 0
    module = load_package(package)
    save_checkpoint(module.Model(seed=5), module, weights)
    capsys.readouterr()
    rows = []
    for call in ([package, weights], [weights]):
        assert cli.main(["verify", *map(str, call), "--json", "--only", "atoms", "--dtype", "float32"]) == 0
        captured = capsys.readouterr()
        found = json.loads(captured.out)
        assert (found["package"], found["checkpoint"], found["device"]) == (str(call[0]), str(weights), "cpu")
        assert captured.err.startswith("verified in ")
        rows.append(found["checks"])
    assert rows[0] == rows[1]
    assert [row["dtype"] for row in rows[0]] == ["float32", "float32"]


def test_verify_fails_where_a_check_fails(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["build", str(spec), "--out", str(spec.parent)]) == 0
    checks = (("atoms", lambda _subject: battery.Check("energies", math.nan, 1e-6, "eV", "H")),)
    monkeypatch.setattr("tensorgraph.battery.battery.CHECKS", checks)
    capsys.readouterr()
    call = ["verify", str(spec.parent / "small1"), "--only", "atoms", "--dtype", "float64"]
    assert cli.main([*call, "--json"]) == 1
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert not found["passed"]
    assert found["checks"] == [
        {"dtype": "float64", "name": "energies", "measured": "nan", "bound": 1e-6, "unit": "eV", "where": "H",
         "passed": False, "skipped": False, "problems": ["H"]}
    ]  # fmt: skip
    assert cli.main(call) == 1
    assert "WRONG" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "abacus"], "tensorgraph: --device: device 'abacus' cannot be used"),
        (["--only", "taste"], "tensorgraph: --only is 'taste'; allowed: certificate, rotation, "),
        (["specs/hipnn.yaml"], "tensorgraph: specs/hipnn.yaml is not a safetensors file"),
    ],
)
def test_wrong_calls_of_verify_are_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "generated/hipnn", *options]) == (1 if "yaml" in options[0] else 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


def test_verify_takes_one_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "README.md", "LICENSE"]) == 2
    assert capsys.readouterr().err == "tensorgraph: README.md is a file, not the package of LICENSE\n"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"name": "a1"}'])
def test_verify_of_what_is_no_package_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    result = run("verify", tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "is not a generated package" in result.stderr
