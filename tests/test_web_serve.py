"""What the page sends is stored once, or refused in plain words; the command line knows what the package knows."""

import json

import pytest
import test_importers_web as web

from labbench import cli_web_live
from labbench.cli import main
from labbench.store import Store
from labbench.web.browsers import NAMES
from labbench.web.live import LOADED
from labbench.web.serve import receiver


def test_what_the_page_sends_is_stored_once(tmp_path):
    body = json.dumps(web.document(web.live(), web.BENCHMARK)).encode()
    said = []
    with receiver(tmp_path / "s.h5", said.append) as take:
        take(body)
        take(body)
    assert said[0].startswith("2 records imported")
    assert "2 records there already" in said[1]
    assert list(Store(tmp_path / "s.h5").frame()["provenance"].unique()) == ["imported"]


@pytest.mark.parametrize(("body", "why"), [(b"{", "not valid JSON"), (b"{}", "not a result"), (b"", "is empty")])
def test_what_is_none_is_refused_without_naming_a_path(tmp_path, body, why):
    with receiver(tmp_path / "s.h5", print) as take, pytest.raises(ValueError, match=why) as refused:
        take(body)
    assert "/" not in str(refused.value)


def test_the_command_line_knows_the_browsers_and_loads():
    assert cli_web_live.BROWSERS == NAMES
    assert tuple(LOADED) == cli_web_live.LOADS


def test_web_import_takes_a_saved_file_and_says_so_or_why_not(tmp_path, capsys):
    (tmp_path / "phone.json").write_text(json.dumps(web.document(web.live())))
    store = tmp_path / "s.h5"
    assert main(["web", "import", str(tmp_path / "phone.json"), "--store", str(store)]) == 0
    assert capsys.readouterr().out.startswith("1 record imported")
    (tmp_path / "other.json").write_text("[]")
    assert main(["web", "import", str(tmp_path / "other.json"), "--store", str(store)]) == 2
    assert "not a result of `labbench web serve`" in capsys.readouterr().err


def test_web_live_names_what_it_does_not_know(tmp_path, capsys):
    assert main(["web", "live", "--model", "kws-tinny", "--store", str(tmp_path / "s.h5")]) == 2
    assert "did you mean 'kws-tiny'?" in capsys.readouterr().err
    assert main(["web", "live", "--model", "whisper-micro-decoder", "--store", str(tmp_path / "s.h5")]) == 2
    assert "hears no audio" in capsys.readouterr().err
