"""Published training runs on clusters against the simulator: what is compared, on what it rests, is in its module.

``labbench.distributed.published`` tells which runs, which sources.

With FOLDER, NeuSight's ``scripts/asplos`` data, the laws of single kernels are fitted anew and printed beside those that the
package keeps.

    python benchmarks/published_clusters.py [FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from labbench.distributed.compute import LAWS, Laws
from labbench.distributed.published import GOAL, compare, summary
from labbench.machine.datasheet import datasheet
from labbench.prediction.kernels import KernelModel


def main() -> None:
    """Print each run beside what was simulated, then errors by source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    runs = compare(fitted(folder) if folder else LAWS)
    pd.set_option("display.width", 250)
    shown = runs.drop(columns=["within", "memory_bytes"]).assign(off=(100 * runs["off"]).map("{:+.1f} %".format))
    shares = [name for name in shown if name not in list(runs)[:10]]
    shown[shares] = (100 * shown[shares]).round().astype(int)
    print(shown.to_string(index=False, float_format="{:.4g}".format))
    print(f"\nBy source and device: error, worst and bias of the step's time in %, runs within {GOAL:.0%}")
    print(summary(runs).to_string(index=False, float_format="{:.1f}".format))
    error = 100 * runs["off"].abs().mean()
    print(f"all: {len(runs)} runs, {int(runs['within'].sum())} within {GOAL:.0%}, mean error {error:.1f} %")


def fitted(folder: Path) -> Laws:
    """The laws of single kernels, printed beside those that the package keeps."""
    from labbench.importers.neusight_kernels import kernels

    timed = kernels(folder / "ops")
    model = KernelModel.fit(timed, {name: datasheet(name) for name in timed["device"].unique()}, judge=False)
    shares = {kind: float(np.exp(model.laws[kind].share + model.laws[kind].stacked)) for kind in LAWS.shares}
    laws = Laws(model.laws["product"], shares)
    for what, mine in (("kept", LAWS), ("fitted", laws)):
        theta = " ".join(f"{value:.3g}" for value in np.exp(mine.product.theta))
        print(
            f"laws {what}: product {theta}; " + ", ".join(f"{kind} {share:.3f}" for kind, share in mine.shares.items())
        )
    return laws


if __name__ == "__main__":
    main()
