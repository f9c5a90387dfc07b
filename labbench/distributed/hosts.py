"""Where ranks run: this machine, or hosts that an agent is started on by words before its command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Host:
    """A host of a job. It sees the job's folder under the same path as the launcher does.

    Attributes
    ----------
    name : str
    address : str
        Where the other hosts reach it.
    prefix : tuple of str
        Words before a command that has it run there, e.g. ``("ip", "netns", "exec", "h0")``.
    environment : mapping of str to str
        Besides the launcher's own.
    """

    name: str = "localhost"
    address: str = "localhost"
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


HERE = Host()
