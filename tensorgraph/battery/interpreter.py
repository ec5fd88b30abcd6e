"""Runs Triton kernels in triton's interpreter: a program of its own, run by `interpreted.py` in a fresh process.

Triton decides at its import whether kernels are interpreted. Each line of the input asks for one call: `module` and
`function` of the package in the folder that the first argument names, and its `arguments`, each of them a `value`, a
`tensor` by its name in `request.safetensors`, or `fields` that are such tensors. The file is in the folder that the
second argument names, where `answer.safetensors` is written before the answer: a line with the number of tensors in it.
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_PACKAGE = "interpreted"


def main(folder: Path, exchange: Path) -> None:
    """Answers requests until there are no more."""
    package = ModuleType(_PACKAGE)  # what the kernels import, without what the package's own `__init__` does
    package.__path__ = [str(folder)]
    sys.modules[_PACKAGE] = package
    torch.set_num_threads(1)
    for line in sys.stdin:
        count = _answer(json.loads(line), exchange)
        print(json.dumps(count), flush=True)


def _answer(request: dict[str, Any], exchange: Path) -> int:
    tensors = load_file(exchange / "request.safetensors")
    module = importlib.import_module(f"{_PACKAGE}.{request['module']}")
    arguments = [_argument(given, tensors) for given in request["arguments"]]
    found = getattr(module, request["function"])(*arguments)
    results = (found,) if isinstance(found, torch.Tensor) else found
    named = {str(k): result.contiguous() for k, result in enumerate(results)}
    save_file(named, exchange / "answer.safetensors")
    return len(named)


def _argument(given: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    if "tensor" in given:
        return tensors[given["tensor"]]
    if "fields" in given:
        return SimpleNamespace(**{name: tensors[key] for name, key in given["fields"].items()})
    return given["value"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
