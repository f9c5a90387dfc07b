"""Figures of measurements: DataFrame in, Axes out. Milliseconds and ratios on the axes, SI in the frames."""

from labbench.plots.base import (
    MARKERS,
    MS,
    ROW_IN,
    WIDTH_IN,
    legend_above,
    new_axes,
    plain_ticks,
    platform_colors,
    theme,
)
from labbench.plots.bottleneck import plot_bottlenecks
from labbench.plots.cluster import plot_cluster_scaling, plot_parts, plot_published, plot_rank_memory
from labbench.plots.comparison import plot_latency, plot_latency_pairs, plot_latency_shares, plot_speedup
from labbench.plots.cost import plot_one_off, plot_roofline
from labbench.plots.history import plot_histories, plot_history
from labbench.plots.live_audio import plot_live_parts, plot_live_spread
from labbench.plots.points import plot_points
from labbench.plots.profile import panels, plot_cold_start, plot_curve, plot_memory, plot_pareto
from labbench.plots.ranks import plot_collectives, plot_rank_parts, plot_rank_scaling
from labbench.plots.table import plot_matrix
from labbench.plots.training import (
    plot_anatomy,
    plot_beside_inference,
    plot_findings,
    plot_memory_causes,
    plot_variants,
)
from labbench.plots.tuning import plot_batches, plot_probes, plot_range_test, plot_trials
from labbench.plots.web import plot_compatibility, plot_slowdown

__all__ = [
    "MARKERS",
    "MS",
    "ROW_IN",
    "WIDTH_IN",
    "legend_above",
    "new_axes",
    "panels",
    "plain_ticks",
    "platform_colors",
    "plot_anatomy",
    "plot_batches",
    "plot_beside_inference",
    "plot_bottlenecks",
    "plot_cluster_scaling",
    "plot_cold_start",
    "plot_collectives",
    "plot_compatibility",
    "plot_curve",
    "plot_findings",
    "plot_histories",
    "plot_history",
    "plot_latency",
    "plot_latency_pairs",
    "plot_latency_shares",
    "plot_live_parts",
    "plot_live_spread",
    "plot_matrix",
    "plot_memory",
    "plot_memory_causes",
    "plot_one_off",
    "plot_pareto",
    "plot_parts",
    "plot_points",
    "plot_probes",
    "plot_published",
    "plot_range_test",
    "plot_rank_memory",
    "plot_rank_parts",
    "plot_rank_scaling",
    "plot_roofline",
    "plot_slowdown",
    "plot_speedup",
    "plot_trials",
    "plot_variants",
    "theme",
]
