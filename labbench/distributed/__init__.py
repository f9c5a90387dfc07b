"""Training on many devices: what a cluster one does not have would do with a model, simulated; what ranks here do, measured.

    Transformer, Strategy ──> Step (seconds and bytes of each segment) ──┐
    a step measured on one rank, by segment ─────────────────────────────┼──> simulate ──> Simulated
    Cluster, measured or nominal links ──> Collectives ──────────────────┘       └── plan: the best of all strategies

Everything that comes out of that carries the provenance ``simulated``; every figure that goes in says where it comes from.

    Job ── launch ──> agent (torchrun) ──> ranks: correct, steps and their overlap, collectives ──> measured, faults ──> Records
    Records ──> scaling, overhead: what more ranks bring ── continuation ──> simulate
"""
