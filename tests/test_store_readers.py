"""A small run of ``benchmarks/store_readers.py``, so that it cannot rot."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import store_readers


def test_readers_see_no_torn_record_while_another_process_writes(monkeypatch):
    monkeypatch.setattr("labbench.store.writer.FOLD_AT", 40)
    total, reads = store_readers.watch(records=300, readers=3)
    assert len(reads) == 3
    assert min(reads) >= 1
    assert (total["torn"], total["errors"], total["missing at the end"]) == (0, 0, 0)
