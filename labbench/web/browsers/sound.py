"""A sound server without a sound card, for browsers that start no audio without one (Firefox, WebKitGTK).

PulseAudio with a null sink takes what is played at the pace of a clock, as a card would. It is one of the browser's group: it
lives in its folder, knows of nothing outside it, and ends with it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from labbench.web.browsers.base import Unavailable

if TYPE_CHECKING:
    from labbench.web.browsers.processes import Group

PROGRAM = "pulseaudio"
INSTALL = "apt-get install pulseaudio gstreamer1.0-pulseaudio"  # the second: WebKitGTK plays through GStreamer
START_S = 15.0


def start(group: Group) -> None:
    """Start the server in the group; programs that the group starts from now on find it.

    Raises
    ------
    Unavailable
        Where PulseAudio is not installed: with what to install.
    BrowserError
        If it does not start, with its last words.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise Unavailable(f"no sound server: {PROGRAM} is not installed; get it with `{INSTALL}`")
    socket = group.folder / "pulse"
    group.start(
        [
            program,
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "--log-target=stderr",
            "-n",  # no modules but these
            "--load=module-null-sink sink_name=labbench rate=48000",
            f"--load=module-native-protocol-unix socket={socket} auth-anonymous=1",
        ],
        PULSE_RUNTIME_PATH=str(group.folder),
    )
    group.environment["PULSE_SERVER"] = f"unix:{socket}"
    group.wait("the sound server", lambda: socket.exists() or None, START_S)
