"""The database of records: one HDF5 file, append-only, with history; see :class:`Store`.

An appended record goes to a journal beside the file (:mod:`~labbench.store.journal`) and is on the disk when ``append``
returns. The journal is folded into the HDF5 file (:mod:`~labbench.store.hdf5`) when the writer closes, or when it has grown: the
file is written anew and renamed, so that it is whole at every moment. Readers see the file plus the journal, one snapshot a
query. One writer at a time; any number of readers, who never wait.
"""

from __future__ import annotations

from labbench.store.errors import Refused, StoreError, StoreLocked, StoreWarning
from labbench.store.store import Store

__all__ = ["Refused", "Store", "StoreError", "StoreLocked", "StoreWarning"]
