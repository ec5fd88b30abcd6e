"""Compilers that are refused: by the sources, for wrong results, or because trying again is of no use."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generated.hipnn import model, tensors
from generated.hipnn._runtime import libraries, moments, native, pairs, tables, trials
from tests.helpers import counting_compiler, empty_cache, uses

ROOT = Path(__file__).parents[1]
REAL = shutil.which(os.environ.get("CC", "cc"))

CALL = """
import warnings, torch
warnings.simplefilter("always")
from generated import hipnn
from generated.hipnn.model import sensitivities
for dtype in (torch.float64, torch.float32):
    features = torch.randn(5, 1, 19, dtype=dtype)
    assert torch.equal(hipnn.invariants(features), features)
radial = torch.rand(70, 2, dtype=torch.float64) + 0.1
mu, sigma = torch.linspace(1, 5, 21, dtype=torch.float64), torch.full((21,), 10.0, dtype=torch.float64)
found = sensitivities(radial, mu, sigma)
expected = torch.exp(-((sigma * (radial[:, :1] - 1 / mu)) ** 2) / 2) * radial[:, 1:]
torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
from generated.hipnn._runtime import native
source = hipnn.invariants.__globals__["PROGRAMS"].source
print("native" if native.available(source, "forward", torch.float64) else "pytorch")
"""


def call(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    """Right values, whatever the compiler, in a process of its own with an empty folder for libraries."""
    variables = {k: v for k, v in os.environ.items() if k not in ("CC", "TENSORGRAPH_CPU")}
    variables |= {"TENSORGRAPH_CACHE": str(tmp_path / "cache")} | environment
    return subprocess.run(
        [sys.executable, "-c", CALL], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120
    )


def assert_refused(done: subprocess.CompletedProcess, compiler: str, reason: str, cache: Path) -> None:
    """With one warning that says which compiler and why; nothing of it is kept."""
    assert done.stdout == "pytorch\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert reason in done.stderr
    assert Path(compiler).name in done.stderr
    assert "plain PyTorch runs instead" in done.stderr
    assert list(cache.iterdir()) == []


PRINTED = (sys.modules["generated.hipnn.invariants"].PROGRAMS, tensors.PROGRAMS, model.sensitivities)
SOURCES = {s.name: s for s in (moments.SOURCE, pairs.SOURCE, *(programs.source for programs in PRINTED))}

needs_tcc = pytest.mark.skipif(shutil.which("tcc") is None, reason="needs tcc, a compiler without vector extensions")

IGNORANT = {
    "of attributes": (f"{REAL} -D__attribute__(x)=", "tensorgraph needs a compiler with vector extensions"),
    "of vector_size": (f"{REAL} -Dvector_size(x)=may_alias", "tensorgraph needs a compiler with"),
    "of alignment": (f"{REAL} -Daligned(x)=may_alias", "tensorgraph needs a compiler with"),
    "of numbers": (f"{REAL} -ffast-math", "tensorgraph needs arithmetic as it is written"),
    "of infinity": (f"{REAL} -ffinite-math-only", "tensorgraph needs arithmetic as it is written"),
}


@needs_tcc
def test_tcc_is_refused_by_the_source(tmp_path):
    done = call(tmp_path, CC="tcc")
    assert_refused(done, "tcc", "tensorgraph needs a compiler with vector extensions", tmp_path / "cache")


@pytest.mark.parametrize("what", IGNORANT)
def test_compilers_without_what_a_source_needs_are_refused_at_once(tmp_path, what):
    command, reason = IGNORANT[what]
    script, log = counting_compiler(tmp_path)
    wrapped = f"{script} " + " ".join(f"'{argument}'" for argument in command.split(" ")[1:])
    assert_refused(call(tmp_path, CC=wrapped), script, reason, tmp_path / "cache")
    assert uses(log) == 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("real", ["float", "double"])
def test_every_source_refuses_them(source, real):
    """Each on its own: which is built first depends on the model."""
    macros = [f"-D{key}" for key in (f"REAL={real}", "COMPONENTS=4", "FUNCTIONS=5", "COLUMNS=5", "BLOCK=8")]
    macros += [f"-D{name}" for name in PROGRAMS[source]]
    for arguments, refused in (([], False), (["-D__attribute__(x)="], True), (["-ffast-math"], True)):
        command = [REAL, "-std=gnu11", "-fsyntax-only", *arguments, *macros, "-x", "c", "-"]
        done = subprocess.run(command, input=SOURCES[source].text, capture_output=True)
        assert (done.returncode != 0, libraries.REFUSAL.encode() in done.stderr) == (refused, refused)


PROGRAMS = {
    "moments_cpu.c": ("MOMENTS", "MOMENTS_BACKWARD", "MOMENTS_DOUBLE_BACKWARD"),
    "pairs_cpu.c": ("ENVIRONMENT", "ENVIRONMENT_BACKWARD", "ENVIRONMENT_DOUBLE_BACKWARD"),
    **{
        f"{stem}_cpu.c": ("FORWARD", "BACKWARD", "DOUBLE_BACKWARD")
        for stem in ("invariants", "sensitivities", "tensors")
    },
}
MACROS = {
    "moments_cpu.c": {"COMPONENTS": 4, "FUNCTIONS": 5},
    "pairs_cpu.c": {"COMPONENTS": 4, "FUNCTIONS": 5},
    "sensitivities_cpu.c": {"COLUMNS": 21, "BLOCK": 256},
}
TAILS = "s/lanes \\* sizeof(real)/(lanes - 1) * sizeof(real)/"
ROWS = "s/lane < lanes; lane++/lane < lanes - 1; lane++/"
"""Where one channel of many atoms is taken as rows."""
MISTAKES = {
    "moments_cpu.c": ["s/sum += /sum -= /; s/] += t/] -= t/"],
    "pairs_cpu.c": [TAILS, "s/sums\\[k % 4\\] +=/sums[k % 2] -=/"],
    "invariants_cpu.c": [TAILS, ROWS, "s/block < atoms \\* vectors/block < atoms * vectors - 1/"],
    "sensitivities_cpu.c": [TAILS, "s/0x1.a39ef35793c76p-33/0.0/"],
    "tensors_cpu.c": [TAILS, ROWS, "s/block < atoms \\* vectors/block < (atoms - 1) * vectors/"],
}
"""What compilers could do wrong, as editing of the source: tails, sums, shares of threads, the last digits."""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder for libraries, and a process that has not warned of, or given up, any compiler."""
    return empty_cache(libraries, tmp_path / "cache", monkeypatch)


def built(source: str, name: str, dtype: torch.dtype = torch.float64):
    return native._compiled.__wrapped__(SOURCES[source], name, dtype, **MACROS.get(source, {}))


@pytest.mark.parametrize(("source", "mistake"), [(s, m) for s, all_of in MISTAKES.items() for m in all_of])
def test_a_library_that_computes_something_else_is_not_kept(tmp_path, cache, monkeypatch, source, mistake):
    script, log = counting_compiler(tmp_path, f"sed '{mistake}' | {REAL} \"$@\"; exit $?")
    monkeypatch.setenv("CC", script)
    for name in map(str.lower, PROGRAMS[source]):
        monkeypatch.setattr(libraries, "_said", set())
        monkeypatch.setattr(libraries, "_given_up", {})
        with pytest.warns(
            RuntimeWarning, match=f"counting-cc: what the C compiler makes of {name} in {source} is wrong"
        ):
            assert built(source, name) is None
    assert uses(log) == 3
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("mistake", [
    "s/= x\\[k \\* at.step + lane/= 2 * x[k * at.step + lane/",  # one channel
    "s/x + k \\* at.step, at.lanes/x + k * at.step, (at.lanes - 1)/",  # several
    "s/out\\[lane \\* at.across\\] = lanes/out[lane * at.across] = 2 * lanes/",
    "s/groups\\[k\\]; group/groups[k] + 1; group/",
])  # fmt: skip
def test_a_library_that_evaluates_tables_wrongly_is_not_kept(tmp_path, cache, monkeypatch, mistake):
    script, log = counting_compiler(tmp_path, f"sed '{mistake}' | {REAL} \"$@\"; exit $?")
    monkeypatch.setenv("CC", script)
    with pytest.warns(RuntimeWarning, match=r"what the C compiler makes of table in tables_cpu.c is wrong"):
        assert native._compiled.__wrapped__(tables.SOURCE, "table", torch.float64, DEGREE=3) is None
    assert (uses(log), list(cache.iterdir())) == (1, [])


def test_a_compiler_that_was_wrong_once_is_not_asked_again(tmp_path, cache, monkeypatch):
    """By this process; what it has kept before stays in use."""
    script, log = counting_compiler(tmp_path, f"sed '{TAILS}' | {REAL} \"$@\"; exit $?")
    monkeypatch.setenv("CC", script)
    with pytest.warns(RuntimeWarning) as said:
        assert [built("invariants_cpu.c", name) for name in ("forward", "backward")] == [None, None]
    assert (uses(log), len(said)) == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kept_libraries_are_not_tried_again(cache, monkeypatch, dtype):
    trials_held = []
    right = native._try
    monkeypatch.setattr(native, "_try", lambda *arguments: (trials_held.append(arguments), right(*arguments)))
    for _ in range(2):
        for source in SOURCES:
            assert built(source, PROGRAMS[source][0].lower(), dtype) is not None
    assert len(trials_held) == len(SOURCES)


def test_a_library_without_the_program_is_refused(tmp_path, cache, monkeypatch):
    script, _ = counting_compiler(tmp_path, f"sed 's/void forward(/void other(/' | {REAL} \"$@\"; exit $?")
    monkeypatch.setenv("CC", script)
    with pytest.warns(RuntimeWarning, match=r"leaves forward out of invariants_cpu\.c"):
        assert built("invariants_cpu.c", "forward") is None


def test_trials_leave_the_callers_state_alone(cache):
    """His random numbers, and whatever modes he is in."""
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        assert built("pairs_cpu.c", "environment", torch.float32) is not None
    assert torch.equal(torch.get_rng_state(), before)


def test_deviations_are_those_of_columns():
    exact = torch.tensor([[1.0, 1e6, 0.0], [-2.0, 1.0, 0.0]])
    found = exact + torch.tensor([[0.1, 0.0, 0.0], [0.0, 10.0, 0.0]])
    assert trials.deviation([found], [exact]) == pytest.approx(1e-4)  # 0.1 beside a thousandth of the largest
    assert trials.deviation([found[:, :1]], [exact[:, :1]]) == pytest.approx(0.05)
    assert trials.deviation([exact, exact[:0]], [exact, exact[:0]]) == 0
    assert trials.deviation([torch.ones(2)], [torch.zeros(2)]) == 1
    for place in (0, 1):
        assert torch.tensor(trials.deviation([exact, exact * torch.nan][:: 1 - 2 * place], [exact, exact])).isnan()


ENDED = {
    "by a signal": ("kill -KILL $$", "ended by signal 9"),
    "by a signal, as shells say": ("exit 137", "ended by signal 9"),
    "in part": ('echo "cc: fatal error: Killed signal terminated program cc1" >&2; exit 1', "Killed signal"),
    "of a full disk": ('echo "error: error writing to /tmp/a.s: No space left on device" >&2; exit 1', "No space left"),
    "of full memory": ('echo "cc1: out of memory allocating 65536 bytes" >&2; exit 1', "out of memory"),
    "never": ("exec sleep 60", r"more than 0\.5 s"),
}


@pytest.mark.parametrize("how", ENDED)
def test_what_would_fail_again_is_not_tried_again(tmp_path, cache, monkeypatch, how):
    """Neither with other flags nor for other programs."""
    before, reason = ENDED[how]
    script, log = counting_compiler(tmp_path, before)
    monkeypatch.setenv("CC", script)
    if how == "never":
        monkeypatch.setattr(libraries, "COMPILE_SECONDS", 0.5)
    with pytest.warns(RuntimeWarning, match=reason) as said:
        assert [built("invariants_cpu.c", name) for name in ("forward", "backward")] == [None, None]
    assert (uses(log), len(said)) == (1, 1)
    assert "plain PyTorch runs instead" in str(said[0].message)


@pytest.mark.parametrize("name", ["TemporaryDirectory", "mkstemp"])
def test_a_full_disk_of_this_process_is_said_once(tmp_path, cache, monkeypatch, name):
    """Where nothing can be built; what is built but cannot be kept runs from where it is."""
    script, log = counting_compiler(tmp_path)
    monkeypatch.setenv("CC", script)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(libraries.tempfile, name, full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as said:
        found = [built("invariants_cpu.c", program) for program in ("forward", "backward")]
    assert [function is not None for function in found] == [name == "mkstemp"] * 2
    assert (uses(log), len(said)) == (2 if name == "mkstemp" else 0, 1)
