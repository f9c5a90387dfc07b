"""Imported once by the fork server, so that no worker has to: whatever a forked worker would import anyway.

Nothing here may start threads or open an accelerator: the server is forked for every cell.
"""

import importlib

MODULES = (
    "labbench.measure.worker",
    "labbench.measure.steady",
    "labbench.measure.memory",
    "labbench.runtimes.check",
    "labbench.footprint",
)

for _name in MODULES:
    importlib.import_module(_name)
