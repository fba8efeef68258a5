"""In a process that keeps the memory it frees, pages are not cleared again at each step."""

import subprocess
import sys

FAULTS = """
from resource import RUSAGE_SELF, getrusage
from olfl_ray import keep_freed_memory

def faults():
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bytearray(64 << 20)
    return getrusage(RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
faults()
print(faults())
"""


def test_pages_are_faulted_in_once() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True).stdout
    given_back, kept = map(int, said.split())
    assert 5 * kept < given_back
