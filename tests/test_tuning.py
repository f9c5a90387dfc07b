"""Batch sizes and learning rates found by measuring."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.cells import Cell
from labbench.config import ConfigError
from labbench.tuning.largest_batch import Probe, largest_batch

CELL = Cell.of(model="bert-tiny", mode="training")
MB = 10**6


def search(limit, base, slope, overhead, runtime=1.0, dies=False):
    """A search in a made machine: tensors take base + slope·b, the process overhead + runtime × that; it may die of too much."""

    def probe(cell, limit_bytes, protocol):
        size = cell.workload.batch_size
        used = int(overhead + runtime * (base + slope * size))
        if used > limit_bytes:
            return Probe(size, None if dies else used, False, "too much")
        return Probe(size, used, True)

    return largest_batch(CELL, limit, probe=probe, counted=lambda cell: base + slope * cell.workload.batch_size)


@settings(max_examples=300, deadline=None)
@given(
    base=st.floats(1, 500), slope=st.floats(0.05, 200), overhead=st.floats(0, 200), runtime=st.floats(0.9, 1.3),
    room=st.floats(1.5, 50), dies=st.booleans(),
)  # fmt: skip
def test_the_largest_batch_is_found_within_5_percent_in_5_probes(base, slope, overhead, runtime, room, dies):
    limit = int(room * MB * (base + slope + overhead))
    found = search(limit, base * MB, slope * MB, overhead * MB, runtime, dies)
    true = int((limit - overhead * MB - runtime * base * MB) / (runtime * slope * MB))
    assert len(found.probes) <= 5
    assert found.batch_size <= true + 1  # rounding of bytes
    assert found.batch_size >= min(0.95 * true, true - 1)


def test_what_does_not_fit_at_all_says_so():
    found = search(100 * MB, 200 * MB, 1 * MB, 0)
    assert found.batch_size == 0
    assert "not even one sample" in str(found)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="give more than none"):
        largest_batch(CELL, 0)
