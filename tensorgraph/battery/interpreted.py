"""A package's Triton kernels on a CPU, by triton's interpreter in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tensorgraph.battery.switching import Dispatch, programs_by
from tensorgraph.model.loading import package_directory

_PROGRAM = Path(__file__).with_name("interpreter.py")


class Interpreter:
    """The process, and how it is asked."""

    def __init__(self, process: subprocess.Popen[str], exchange: Path, complaints: Path) -> None:
        self._process, self._exchange, self._complaints = process, exchange, complaints
        self.expired = False

    def run(self, module: str, function: str, arguments: tuple[Any, ...]) -> Any:
        """What a function of a module of kernels gives. Raises RuntimeError where there is no answer."""
        tensors: dict[str, Tensor] = {}
        request = {"module": module, "function": function, "arguments": [_named(x, tensors) for x in arguments]}
        save_file(tensors, self._exchange / "request.safetensors")
        count = self._ask(json.dumps(request))
        answer = load_file(self._exchange / "answer.safetensors")
        return answer["0"] if count == 1 else tuple(answer[str(k)] for k in range(count))

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(self._last_words())
        return int(json.loads(answer))

    def _last_words(self) -> str:
        self._process.wait()
        if self.expired:
            return "triton's interpreter was stopped at the time limit"
        lines = self._complaints.read_text(errors="replace").strip().splitlines()
        return f"triton's interpreter ended: {lines[-1] if lines else f'status {self._process.returncode}'}"

    def stop(self) -> None:
        """What the time limit does."""
        self.expired = True
        self._process.kill()


def _named(argument: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """How a request names an argument; its tensors are added to the others, each with a memory of its own."""

    def add(tensor: Tensor) -> str:
        name = str(len(tensors))
        tensors[name] = tensor.detach().clone().contiguous()
        return name

    if isinstance(argument, Tensor):
        return {"tensor": add(argument)}
    if isinstance(argument, tuple):
        return {"fields": {name: add(tensor) for name, tensor in argument._asdict().items()}}  # type: ignore[attr-defined]
    return {"value": argument}


@contextmanager
def interpreted_kernels(package: ModuleType, seconds: float) -> Iterator[Interpreter]:
    """The package's Triton kernels run all programs, for at most so many seconds."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    with tempfile.TemporaryDirectory(prefix="tensorgraph-") as folder:
        exchange, complaints = Path(folder), Path(folder, "complaints")
        command = [sys.executable, "-P", str(_PROGRAM), str(package_directory(package)), folder]
        with complaints.open("w") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        interpreter = Interpreter(process, exchange, complaints)
        limit = threading.Timer(seconds, interpreter.stop)
        limit.start()
        try:
            with programs_by(_standing_in(interpreter)):
                yield interpreter
        finally:
            limit.cancel()
            _end(process)


def _standing_in(interpreter: Interpreter) -> Callable[[Dispatch], Dispatch]:
    def stand_in(_own: Dispatch) -> Dispatch:
        def run(name: str, kernels: str, _plain: Any, arguments: tuple[Any, ...], _on_cpu: Any) -> Any:
            return interpreter.run(_in_package(kernels), name, arguments)

        return run

    return stand_in


def _in_package(module: str) -> str:
    """The place in a package of a module of kernels, which equal code of another package may have asked for."""
    *folders, name = module.split(".")
    return f"_runtime.{name}" if folders[-1] == "_runtime" or folders == ["tensorgraph", "runtime"] else name


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # of a request that nobody has read
            pipe.close()
