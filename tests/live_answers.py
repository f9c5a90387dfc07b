"""Answers of the live page, made up: what live.js would say of hops that took as told."""

from typing import Any

OPENED: dict[str, Any] = {
    "provider": "wasm",
    "where": "worker",
    "phases": {"runtime_s": 0.1, "download_s": 0.2, "session_s": 0.3, "first_run_s": 0.04},
    "threads": {"asked": 1, "used": 1, "workers": 0},
    "counts": {"dispatches": 0, "submits": 0, "webnn": 0},
    "adapter": None,
    "placement": None,
    "model_bytes": 20_000,
    "error": None,
}
RATE = 16_000


def answer(hops: int = 50, dropped: int = 0, hop_s: float = 0.1, late_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    """A run whose hops are taken up 2 ms after they are whole (``late_s`` more), and worked off in 3 + 5 ms."""
    ends = [hop_s * (2 + i) for i in range(hops)]
    picked = [end + 0.002 + late_s for end in ends]
    return {
        "status": "ok",
        "source": "signal",
        "clock": "coarse",
        "rate": RATE,
        "window": RATE,
        "hop": round(hop_s * RATE),
        "slack_s": 1,
        "slowdown": None,
        "seconds": hop_s * (hops + dropped + 1),
        "ready": {"opened": OPENED, "warmed": True, "warmup_calls": 12, "call_s": 0.008},
        "hops": {
            "from_s": [end - hop_s for end in ends],
            "complete_s": ends,
            "picked_s": picked,
            "done_s": [at + 0.008 for at in picked],
            "received_s": [at + 0.009 for at in picked],
            "features_s": [0.003] * hops,
            "model_s": [0.005] * hops,
        },
        "counts": {
            "hops": hops + 1, "dropped": dropped, "most_behind": 0, "longest_gap_s": 0.1, "starved": 0, "waiting": 0,
            "written": round(hop_s * RATE) * (hops + dropped + 1),
        },
        "audio": {"base_latency_s": 0.01, "output_latency_s": None, "quantum_s": 0.008},
        "track": None,
        **changes,
    }  # fmt: skip
