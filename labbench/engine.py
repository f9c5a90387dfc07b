"""papermill's own engine, but the output is not written anew twice for every cell.

With figures in it an executed notebook is large, and encoding it that often took a tenth of a chain's CPU time. It is
written at most every few seconds while cells run, and when the last one ends, however it ends.
"""

from __future__ import annotations

from typing import Any

from papermill.engines import NBClientEngine, papermill_engines

NAME = "labbench"
SAVE_EVERY_S = 5.0  # of results at most are lost if this process is killed with SIGKILL


class SavesSeldom(NBClientEngine):
    """Runs a notebook through nbclient."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> None:
        """Run the cells."""
        save = nb_man.save

        def save_seldom(nb: Any = None) -> None:
            nb_man.nb = nb or nb_man.nb
            if (nb_man.now() - nb_man.last_save_time).total_seconds() >= SAVE_EVERY_S:
                save()

        nb_man.save = save_seldom
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **kwargs)
        except BaseException:
            del nb_man.save  # the manager's last save follows, and papermill writes nothing after it
            raise
        nb_man.save = lambda nb=None: None  # papermill writes the whole once more, right after this


papermill_engines.register(NAME, SavesSeldom)
