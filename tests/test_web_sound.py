"""The sound server belongs to a browser's processes: programs of the group find it, and it ends with them."""

import shutil
import subprocess

import psutil
import pytest

from labbench.web.browsers import Unavailable, sound
from labbench.web.browsers.processes import Group


def test_programs_of_the_group_find_the_sound_server_and_it_ends_with_the_group():
    if shutil.which(sound.PROGRAM) is None:
        pytest.skip(f"{sound.PROGRAM} is not installed; get it with {sound.INSTALL}")
    group = Group()
    try:
        sound.start(group)
        (server,) = group.tree()
        assert group.environment["PULSE_SERVER"].startswith(f"unix:{group.folder}/")
        if pactl := shutil.which("pactl"):
            told = subprocess.run(
                [pactl, "list", "short", "sinks"], env=group.environment, capture_output=True, text=True
            )
            assert "labbench" in told.stdout
    finally:
        group.close()
    assert not psutil.pid_exists(server.pid)
    assert not group.folder.exists()


def test_without_pulseaudio_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sound.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="apt-get install pulseaudio"):
        sound.start(None)
