"""The allocator's setting."""

import platform
import resource

import numpy as np
import pytest

from motionlib.compute.engines import keep_memory


class TestKeepMemory:
    @pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
    def test_an_array_made_again_costs_almost_no_page_faults(self):
        assert keep_memory()
        for _ in range(2):
            np.ones(2**21)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            np.ones(2**21)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        assert faults < 2**21 * 8 / 4096  # less than one array's worth of pages for twenty
