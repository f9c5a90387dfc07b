"""Freeze a small database of the present schema, for the tests of later ones: ``python tests/frozen/freeze.py``.

It writes ``store_v<schema>.h5``, its journal with entries that are not folded, and what both hold as JSON lines. Do this once
for each schema, in the version that is released; a frozen database is never made anew.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from test_store import ENVIRONMENT, abandon, make_record, make_series  # noqa: E402

from labbench.cells import Cell  # noqa: E402
from labbench.records import SCHEMA_VERSION, Advice, Estimate, Memory, Profile, Record, Series  # noqa: E402
from labbench.store import Store  # noqa: E402

START = datetime(2026, 11, 25, 12, tzinfo=UTC)


def records() -> list[Record]:
    """One of every sort."""
    mean = Series(name="forward", items_per_call=4, unit="samples", n_samples=0, mean_s=0.5, throughput=8.0)
    imported = {
        "provenance": "imported",
        "source": "timm",
        "licence": "Apache-2.0",
        "started_at": None,
        "series": [mean],
    }
    two = [make_series("prefill", (0.5, 0.6, 0.7)), make_series("decode", (0.01, 0.02))]
    profile = Profile(seconds={"matmul": 0.2}, kernels={"matmul": 3}, wall_s=0.4, method="torch.profiler")
    [one] = make_record().series
    advice = Advice(
        change="memory_format", baseline_cell_id="0" * 16, series="forward",
        gain=Estimate(value=1.2, ci_low=1.1, ci_high=1.3), evidence=["1" * 32],
    )  # fmt: skip
    laid_out = Cell.of(model="bert-tiny", memory_format="channels_last", kv_cache=False)
    many = [
        make_record(started_at=START),
        make_record(started_at=START + timedelta(hours=1), series=two, metrics={"joules_total_j": 3.5}),
        make_record(started_at=START + timedelta(hours=2), status="failed", reason="no room\0 \\ é 😀", series=[]),
        make_record(started_at=START + timedelta(hours=3), protocol={"rounds": [1, None, {"a": 0.1}]}),
        make_record(
            started_at=START + timedelta(hours=5), series=[one.model_copy(update={"profile": profile})], advice=advice
        ).model_copy(update={"cell": laid_out}),
        Record(cell=Cell.of(model="resnet50", batch_size=4, precision="amp", device="cuda:0"), status="ok", **imported),
    ]
    [step] = make_record().series
    parts = {"forward": Estimate(value=0.1, ci_low=0.09, ci_high=0.12), "backward": Estimate(value=0.2)}
    trained = Cell.of(
        model="bert-tiny", mode="training", optimizer="sgd", accumulation=4, checkpointing=True, trained="head",
        clip_norm=1.0, loader_workers=2,
    )  # fmt: skip
    memory = Memory(increase_bytes=100, by_cause={"parameters": 60, "workspace": 40})
    metrics = {"loss_first": 2.5, "loss_last": 0.5, "gradient_norm": 1e-3}
    training = make_record(
        started_at=START + timedelta(hours=6), series=[step.model_copy(update={"name": "step", "parts": parts})],
        memory=memory, metrics=metrics,
    )  # fmt: skip
    many.append(training.model_copy(update={"cell": trained}))
    reference = make_record(started_at=START + timedelta(hours=7))
    reference = reference.model_copy(update={"reference_id": reference.record_id})
    many += [reference, make_record(started_at=START + timedelta(hours=7), reference_id=reference.record_id)]
    mistaken = many[3]
    back = {"status": "retraction", "retracts": mistaken.record_id, "reason": "on battery"}
    return [*many, Record(cell=mistaken.cell, started_at=START + timedelta(hours=4), **back)]


if __name__ == "__main__":
    path = HERE / f"store_v{SCHEMA_VERSION}.h5"
    if path.exists():
        sys.exit(f"{path} is frozen")
    everything = records()
    folded, late = everything[:5], everything[5:]
    store = Store(path, writable=True)
    store.extend(folded, [ENVIRONMENT])
    store.pin("v1", [folded[0].record_id], note="frozen")
    store.fold()
    store.extend(late)
    abandon(store)
    path.with_name(f"{path.name}.lock").unlink()
    journal = path.with_name(f"{path.name}.journal")
    journal.write_bytes(journal.read_bytes().rstrip(b"\0"))
    lines = [json.dumps(record.model_dump(mode="json"), ensure_ascii=False) for record in everything]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
