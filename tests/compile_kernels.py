"""Compiles a package's kernels for compute capability 9.0 and prints registers and stack of each.

    python tests/compile_kernels.py FOLDER [fp32|fp64]

A program of its own, because kernels imported under Triton's interpreter cannot be compiled.
"""

import importlib.util
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compiled(kernel, dtype: str, channels: int = 128) -> bytes:
    """The machine code of a kernel."""
    names = list(inspect.signature(kernel.fn).parameters)
    constants = {"channels": channels, "BLOCK": 128}
    signature = dict.fromkeys(names, f"*{dtype}") | {"rows": "i32"} | dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature={name: signature[name] for name in names}, constexprs=values)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["cubin"]


def main(folder: str, dtype: str = "fp32") -> None:
    spec = importlib.util.spec_from_file_location("program_triton", Path(folder) / "program_triton.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for program in ("forward", "backward", "double_backward"):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled(getattr(module, f"{program}_kernel"), dtype))
            file.flush()
            dump = subprocess.run(
                [CUOBJDUMP, "-res-usage", file.name], check=True, capture_output=True, text=True
            ).stdout
        registers, stack = (re.search(rf"{key}:(\d+)", dump).group(1) for key in ("REG", "STACK"))
        print(f"{program} registers={registers} stack={stack}")


if __name__ == "__main__":
    main(*sys.argv[1:])
