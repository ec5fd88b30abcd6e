"""Memory that is kept: in a process of its own, since it concerns all of it."""

import json
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys, torch
from tensorgraph.model import keep_freed_memory
took_effect = keep_freed_memory() if sys.argv[1] == "kept" else False
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
before = faults()
for _ in range(5):
    torch.ones(2**24)
print(json.dumps([took_effect, faults() - before]))
"""


def run(argument: str) -> tuple[bool, int]:
    command = [sys.executable, "-c", PROGRAM, argument]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took_effect, faults = json.loads(done.stdout)
    return took_effect, faults


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept by glibc's own means")
def test_large_arrays_are_mapped_once():
    """64 MiB, five times: 16,384 pages each, unless the system gives larger ones."""
    _, anew = run("anew")
    took_effect, kept = run("kept")
    assert took_effect
    assert kept < 1000 < anew
