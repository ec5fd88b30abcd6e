"""What all tests need before any of them imports torch or triton."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Its assertions tell as much as those of test modules.
pytest.register_assert_rewrite("tests.helpers")

# The libraries of packages that tests build are not the user's.
os.environ.setdefault("TENSORGRAPH_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "libraries"))

# Without a GPU Triton's interpreter runs the kernels; it has to be asked for before triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("default", deadline=None, derandomize=True, max_examples=25, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def fresh_compiler():
    """PyTorch's compiler without graphs of other tests, whose number it limits."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
