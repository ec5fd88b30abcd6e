"""The Triton kernels equal the PyTorch path (interpreted without a GPU, compiled with one) and do not spill."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tensorgraph.cli import main

triton = pytest.importorskip("triton", reason="triton is not installed on this platform")

ROOT = Path(__file__).parents[1]
NAMES = ("hiphop5", "hiphop4", "flexible5", "hipnn")
SIZES = [(5, 3), (1, 1), (129, 1), (0, 4), (3, 0), (2, 127), (31, 33)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="kernels compile for the GPU here")),
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]

sizes = pytest.mark.parametrize(("atoms", "channels"), SIZES)
packages = pytest.mark.parametrize("name", NAMES)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
devices = pytest.mark.parametrize("device", DEVICES)


def arguments(name: str, atoms: int, channels: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """Features, cotangent of the invariants, cotangent of the gradient."""
    architecture = importlib.import_module(f"generated.{name}.architecture")
    generator = torch.Generator().manual_seed(1)
    shapes = [architecture.N_COMPONENTS, architecture.N_INVARIANTS, architecture.N_COMPONENTS]
    return [torch.randn(atoms, k, channels, dtype=dtype, generator=generator).to(device) for k in shapes]


@devices
@packages
@dtypes
@sizes
def test_kernels_equal_the_pytorch_path(name, dtype, atoms, channels, device):
    kernels = importlib.import_module(f"generated.{name}.program_triton")
    plain = importlib.import_module(f"generated.{name}.program_torch")
    features, cotangent, second = arguments(name, atoms, channels, dtype, device)
    for program, tensors in (
        ("forward", (features,)),
        ("backward", (features, cotangent)),
        ("double_backward", (features, cotangent, second)),
    ):
        found, expected = getattr(kernels, program)(*tensors), getattr(plain, program)(*tensors)
        for ours, theirs in zip(as_tuple(found), as_tuple(expected), strict=True):
            assert ours.shape == theirs.shape
            scale = theirs.abs().amax() if theirs.numel() else 1.0
            torch.testing.assert_close(ours, theirs, rtol=0, atol=float(TOLERANCE[dtype] * scale))


@devices
def test_kernels_take_any_layout(device):
    kernels = importlib.import_module("generated.hiphop4.program_triton")
    features, *_ = arguments("hiphop4", 4, 6, torch.float64, device)
    strided = features.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert torch.equal(kernels.forward(strided), kernels.forward(features))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@packages
def test_operators_differentiate_on_the_gpu(name):
    package = importlib.import_module(f"generated.{name}")
    features = arguments(name, 3, 2, torch.float64, "cuda")[0].requires_grad_()
    assert torch.autograd.gradcheck(package.invariants, (features,))
    assert torch.autograd.gradgradcheck(package.invariants, (features,))


def registers(folder: Path, dtype: str) -> list[int]:
    """Of the three kernels, compiled for capability 9.0, which needs no GPU; asserts that none of them spills."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "tests" / "compile_kernels.py"), str(folder), dtype]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    usage = re.findall(r"(\w+) registers=(\d+) stack=(\d+)", output.stdout)
    assert [program for program, *_ in usage] == ["forward", "backward", "double_backward"]
    assert all(int(stack) == 0 for *_, stack in usage), output.stdout
    return [int(count) for _, count, _ in usage]


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("name", ["hiphop5", "flexible5"])
def test_kernels_keep_every_value_in_registers(name, dtype):
    found = registers(ROOT / "generated" / name, dtype)
    if (name, dtype) == ("hiphop5", "fp32"):
        assert all(count <= limit for count, limit in zip(found, (40, 64, 112), strict=True)), found


def test_rank_four_fits_registers_in_float32(tmp_path):
    spec = tmp_path / "f44.yaml"
    spec.write_text("name: f44\nbasis: {family: flexible, body_order: 5, max_rank: 4}\n")
    assert main(["build", str(spec), "--out", str(tmp_path)]) == 0
    registers(tmp_path / "f44", "fp32")


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)
