"""End a report early, in words, where there is too little to report on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def ends_with(*errors: type[Exception]) -> Iterator[None]:
    """Turn an error that says that data are missing into the last sentence of a notebook.

    No later cell runs, and the notebook has run to its end all the same: papermill takes ``SystemExit(0)`` for success. The
    published page ends there too (:func:`labbench.markup.tidy`).

    Parameters
    ----------
    *errors : exception types
        Those that say what is missing and how to get it. Others are failures, as ever.

    Examples
    --------
    >>> with ends_with(PredictionError):
    ...     predictor = Predictor().fit(store.latest(), store.environments())
    """
    try:
        yield
    except errors as error:
        from IPython.display import Markdown, display

        text = str(error)
        display(Markdown(f"{text[:1].upper()}{text[1:]}. So this page ends here."))
        raise SystemExit(0) from None
