"""Compiles a package's float32 kernels for compute capability 9.0 and prints registers and stack of each.

A program of its own, because kernels imported under Triton's interpreter cannot be compiled.
"""

import importlib
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compiled(kernel, channels: int = 128) -> bytes:
    """The machine code of a kernel."""
    names = list(inspect.signature(kernel.fn).parameters)
    constants = {"channels": channels, "BLOCK": 128}
    signature = dict.fromkeys(names, "*fp32") | {"rows": "i32"} | dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature={name: signature[name] for name in names}, constexprs=values)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["cubin"]


def main(package: str) -> None:
    module = importlib.import_module(f"generated.{package}.program_triton")
    for program in ("forward", "backward", "double_backward"):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled(getattr(module, f"{program}_kernel")))
            file.flush()
            dump = subprocess.run(
                [CUOBJDUMP, "-res-usage", file.name], check=True, capture_output=True, text=True
            ).stdout
        registers, stack = (re.search(rf"{key}:(\d+)", dump).group(1) for key in ("REG", "STACK"))
        print(f"{program} registers={registers} stack={stack}")


if __name__ == "__main__":
    main(sys.argv[1])
