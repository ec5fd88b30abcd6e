"""Compiles kernels for absent GPUs: a program of its own, run by `compilation.py` in a fresh interpreter.

Triton decides at its import whether kernels are interpreted, and LLVM ends the process where it does not know a target.
So each kernel is compiled in a child of this process: a child that dies costs its own result alone, and there are as
many at a time as there are processors.

The folder in the argument holds `request.json` (`module`: a file, for jobs that name none of their own; `jobs`: what to
compile) and gets `0.json`, `1.json`, … with the `text` of each kernel or the `reason` why there is none, and then
`answer.json`.
"""

import contextlib
import importlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_PACKAGE = "emitted"
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_BYTES = {"fp32": 4, "fp64": 8}
_INDICES = ("starts", "order", "kinds", "target")
_TIME_LIMIT = 1800  # seconds for one kernel: a bound on what hangs, far above what any within the budget takes


def main(folder: Path) -> None:
    """Does what the request asks for."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    jobs = [{"module": request["module"], **job} for job in request["jobs"]]
    _make_package(folder)
    modules = {name: _imported(name) for name in dict.fromkeys((request["module"], *(j["module"] for j in jobs)))}
    module = modules[request["module"]]
    _in_children(modules, jobs, folder)
    answer = {"triton": triton.__version__, "block": module.BLOCK}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _make_package(folder: Path) -> None:
    """Files of the folder import each other as those of the emitted package do, without what its `__init__` imports."""
    package = ModuleType(_PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[_PACKAGE] = package


def _imported(file: str) -> ModuleType:
    return importlib.import_module(".".join((_PACKAGE, *Path(file).with_suffix("").parts)))


def _in_children(modules: dict[str, ModuleType], jobs: list[dict[str, Any]], folder: Path) -> None:
    running: dict[int, Path] = {}
    try:
        for number, job in reversed(list(enumerate(jobs))):  # double backward first: the longest must not be the last
            while len(running) >= len(os.sched_getaffinity(0)):
                _reap(running)
            result = folder / f"{number}.json"
            child = os.fork()
            if not child:
                _compile_and_exit(modules[job["module"]], job, result)
            running[child] = result
        while running:
            _reap(running)
    finally:
        for child in running:
            _end_group(child)


def _reap(running: dict[int, Path]) -> None:
    child, status = os.wait()
    result = running.pop(child)
    _end_group(child)
    code = os.waitstatus_to_exitcode(status)
    if code == os.EX_IOERR:
        sys.exit(1)  # the child has told why, and the others cannot write either
    if not result.exists():
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        result.write_text(json.dumps({"reason": f"the compiler was ended {how}"}), encoding="utf-8")


def _end_group(child: int) -> None:
    """Ends a child and what it has started: the time limit ends the child alone, not an assembler that it waits for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _compile_and_exit(module: ModuleType, job: dict[str, Any], result: Path) -> None:
    status = os.EX_IOERR
    try:
        os.setpgid(0, 0)
        signal.alarm(_TIME_LIMIT)
        try:
            found = {"text": _text(module, job, result.with_suffix(".cubin"))}
        except BaseException as error:  # whatever the compiler raises is the reason for this target
            found = {"reason": f"{type(error).__name__}: {error}"}
        staging = result.with_suffix(".part")
        staging.write_text(json.dumps(found), encoding="utf-8")
        staging.rename(result)  # a child that is killed leaves no half a result
        status = os.EX_OK
    except OSError as error:
        print(f"cannot write a result: {error.strerror or error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)  # nothing but the one result: the parent goes on


def _invariants_source(module: ModuleType, job: dict[str, Any]) -> ASTSource:
    kernel = getattr(module, job["kernel"] + "_kernel")
    constants = {"channels": job["channels"], "BLOCK": module.BLOCK}
    names = list(inspect.signature(kernel.fn).parameters)
    types = {"rows": "i32"} | dict.fromkeys(constants, "constexpr")
    return ASTSource(
        fn=kernel,
        signature={name: types.get(name, "*" + job["dtype"]) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )


def _pairs_source(module: ModuleType, job: dict[str, Any]) -> ASTSource:
    """A kernel with loops, whose loads are as wide as its arrays are aligned: to 16 bytes, as torch allocates them."""
    kernel, constants = getattr(module, job["kernel"] + "_kernel"), dict(job["constants"])
    names = list(inspect.signature(kernel.fn).parameters)
    if "BLOCK" in names:
        constants["BLOCK"] = module.block(job["kernel"], constants["CHANNELS"], _BYTES[job["dtype"]])
    if "COLUMNS" in names:
        constants["HEIGHT"], constants["WIDTH"] = module.tile(constants["COLUMNS"])
    constants |= {name: None for name in job["absent"] if name in names}
    types = {"n_pairs": "i32", "rows": "i32"} | dict.fromkeys(_INDICES, "*i64") | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "*" + job["dtype"]) for name in names}
    return ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(k,): [["tt.divisibility", 16]] for k, name in enumerate(names) if signature[name].startswith("*")},
    )


def _options(module: ModuleType, job: dict[str, Any]) -> dict[str, Any]:
    """Those that the module's own launches have."""
    lanes = job["lanes"]
    found: dict[str, Any] = (
        _imported("_runtime/launching.py").options(module.THREADS[job["kernel"]], lanes)
        if "constants" in job
        else module.options(lanes)
    )
    return found


def _text(module: ModuleType, job: dict[str, Any], file: Path) -> str:
    """A kernel's machine code as text."""
    source = _pairs_source(module, job) if "constants" in job else _invariants_source(module, job)
    target = GPUTarget(job["backend"], job["arch"], job["lanes"])
    compiled = triton.compile(source, target=target, options=_options(module, job))
    if job["backend"] == "hip":
        assembly: str = compiled.asm["amdgcn"]
        return assembly
    file.write_bytes(compiled.asm["cubin"])
    return _output([_tool("cuobjdump"), "-res-usage", "-sass", str(file)])


def _output(command: list[str]) -> str:
    """What a tool prints; where it fails, the last line that it complains with is the reason."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode:
        complaint = (done.stderr.strip() or f"ended with status {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"{Path(command[0]).name}: {complaint}")
    return done.stdout


def _tool(name: str) -> str:
    bundled = _TOOLS / name
    found = str(bundled) if bundled.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither in the installed triton nor on the PATH")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
