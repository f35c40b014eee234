"""`lab load-gallery`, without the gallery: which users are chosen."""

import ast
import json
from types import SimpleNamespace

import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.cli.commands.load_gallery import load_gallery
from lab.load.gallery import USERS, choose_users
from lab.servers.catalogue import GALLERY, Catalogue
from loadtests.targets import TargetError, Targets

SERVERS = [server.name for server in Catalogue.load().gallery]


def test_there_is_a_user_for_each_word_and_a_word_for_each_user() -> None:
    tree = ast.parse((ROOT / "loadtests" / "galleryfile.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("User")}
    assert classes - {"GalleryUser"} == {name for name, _ in USERS.values()}
    assert {server for _, needed in USERS.values() for server in needed} <= set(SERVERS)


def test_users_are_those_whose_servers_run() -> None:
    assert choose_users([], SERVERS) == [name for name, _ in USERS.values()]
    assert choose_users([], ["gallery_smtp", "gallery_web"]) == ["WebUser", "WebChurnUser"]
    assert choose_users(["web", "ftp", "web"], SERVERS) == ["WebUser", "FtpUser"]
    with pytest.raises(LabError, match=r"mail needs gallery_mail: .*`lab up gallery_mail`"):
        choose_users(["mail"], ["gallery_smtp"])
    missing = r"^mail needs gallery_smtp, gallery_mail: start what is missing with `lab up gallery_smtp gallery_mail`$"
    with pytest.raises(LabError, match=missing):
        choose_users(["ftp", "mail"], ["gallery_ftp"])
    with pytest.raises(LabError, match="`lab up --profile gallery`"):
        choose_users([], ["gallery_telnet"])


def test_what_loads_models_does_not_see_the_gallery() -> None:
    """In what `lab ls --json` prints of both."""
    rows = [
        {"model": name, "family": family, "listeners": [{"service": "echo", "address": f"tcp://{name}:7"}]}
        for name, family in (("mine", "thread"), ("gallery_x", GALLERY))
    ]
    assert Targets.from_json(json.dumps(rows)).models == ["mine"]
    with pytest.raises(TargetError, match="names no model"):
        Targets.from_json(json.dumps(rows[1:]))


@pytest.mark.parametrize(("failures", "code"), [([], 1), ([0, 0], 0), ([0, 2], 1)])
def test_load_without_a_step_has_not_held_either(
    monkeypatch: pytest.MonkeyPatch, failures: list[int], code: int
) -> None:
    rows = [SimpleNamespace(failures=count) for count in failures]
    monkeypatch.setattr("lab.cli.commands.load_gallery.run_headless", lambda *_: rows)
    monkeypatch.setattr("lab.cli.commands.load_gallery.show", lambda shown, *, as_json: None)
    states = [
        SimpleNamespace(model="gallery_web", state="running"),
        SimpleNamespace(model="gallery_ftp", state="exited"),
    ]
    lab = SimpleNamespace(backend=SimpleNamespace(gallery=lambda: states, helpers=None))
    with pytest.raises(SystemExit) as ended:
        load_gallery.main(["--headless"], obj=lab, standalone_mode=False)
    assert ended.value.code == code
