"""Memory that is kept from step to step."""

import platform
import resource

import pytest
import torch

from glic_pyg.training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they do")
def test_what_is_freed_is_there_the_next_time():
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(1 << 22)  # 16 MiB, 4096 pages
    # Small things may settle where a block was freed, and the next block then takes fresh pages.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 5 * 4096
