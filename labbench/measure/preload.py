"""Imported once by the fork server, so that no worker has to: whatever a forked worker would import anyway.

Nothing here may start threads or open an accelerator: the server is forked for every cell.
"""

from labbench import runtimes, zoo
from labbench.runtimes import preload as _runtimes
