"""Downloads from a server on this machine that breaks, lies and refuses."""

import functools
import hashlib
import io
import resource
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from als.cli import main
from als.data.convert import to_coco
from als.data.masks import find_masks
from als.data.prepare import SETS, Archive, Part, prepare
from als.data.toy import TOY_CLASSES
from als.data.voc_layout import load_records
from als.errors import InputError


class Server(ThreadingHTTPServer):
    """Serves `files` (name -> bytes) and keeps `requests` (names).

    breaks: names whose next answer ends in the middle. lies: names whose next answer is other
    bytes of the same length.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.breaks: set[str] = set()
        self.lies: set[str] = set()

    def archive(self, name: str, content: bytes, **more) -> Archive:
        self.files[name] = content
        digest = hashlib.sha256(content).hexdigest()
        values = {"size": len(content), "unpacked": len(content)} | more
        return Archive(f"http://127.0.0.1:{self.server_port}/{name}", "sha256", digest, **values)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        name = self.path[1:]
        content = self.server.files.get(name)
        self.server.requests.append(name)
        if content is None:
            return self.send_error(404)
        body = content
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if name in self.server.lies:
            self.server.lies.remove(name)
            body = bytes(255 - byte for byte in body)
        if name in self.server.breaks:
            self.server.breaks.remove(name)
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def tar_of(folder: Path, inside: str, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        file.add(folder, inside)
    return buffer.getvalue()


def zip_of(folder: Path, inside: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"{inside}/{path.relative_to(folder)}")
    return buffer.getvalue()


def silent(sentence: str) -> None:
    """Passed as `tell`."""


def one_zip(archive: Archive) -> dict:
    return {"voc": (Part("VOC", "VOC", (archive,)),)}


def test_a_download_that_breaks_begins_anew(server, toy_root, tmp_path):
    archive = server.archive("voc.zip", zip_of(toy_root / "VOC2012", "VOC"))
    server.breaks.add("voc.zip")
    assert len(prepare("voc", tmp_path, one_zip(archive), silent)) == 0
    assert server.requests == ["voc.zip"] * 2
    shutil.rmtree(tmp_path / "VOC")
    assert len(prepare("voc", tmp_path, one_zip(archive), silent)) == 0
    assert len(server.requests) == 2, "the archive is there"
    assert [path.name for path in (tmp_path / "archives").iterdir()] == ["voc.zip"]


def test_what_a_killed_download_left_is_not_taken_for_the_file(server, toy_root, tmp_path):
    content = zip_of(toy_root / "VOC2012", "VOC")
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "voc.zip.part").write_bytes(content[:100])
    sets = one_zip(server.archive("voc.zip", content))
    assert len(prepare("voc", tmp_path, sets, silent)) == 0
    assert (tmp_path / "archives" / "voc.zip").read_bytes() == content
    assert not (tmp_path / "archives" / "voc.zip.part").exists()


def test_a_wrong_checksum_is_tried_once_more_and_then_told(server, toy_root, tmp_path):
    content = zip_of(toy_root / "VOC2012", "VOC")
    sets = one_zip(server.archive("voc.zip", content))
    server.lies.add("voc.zip")
    assert len(prepare("voc", tmp_path, sets, silent)) == 0
    assert server.requests == ["voc.zip"] * 2
    shutil.rmtree(tmp_path / "VOC")
    path = tmp_path / "archives" / "voc.zip"
    path.write_bytes(b"put there by hand")
    with pytest.raises(InputError, match=r"voc\.zip: its sha256 is not .* remove it"):
        prepare("voc", tmp_path, sets, silent)
    path.unlink()
    server.files["voc.zip"] = content[::-1]
    with pytest.raises(InputError, match="twice"):
        prepare("voc", tmp_path, sets, silent)
    assert list(path.parent.iterdir()) == [] and not (tmp_path / "VOC").exists()


def test_voc_comes_in_two_archives_and_is_checked(server, toy_root, tmp_path):
    """As VOC2007 does: one folder out of two archives, then SBD's masks into it."""
    whole = toy_root / "VOC2012"
    rest = ("ImageSets", "JPEGImages", "classes.txt")
    one = server.archive("one.tar", tar_of(whole / "Annotations", "kit/VOC/Annotations"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in rest:
            file.add(whole / name, f"kit/VOC/{name}")
    two = server.archive("two.tar", buffer.getvalue())
    masks = tmp_path / "dataset"
    for name in ("cls/toy_000000.mat", "inst/toy_000000.mat", "img/toy_000000.jpg"):
        (masks / name).parent.mkdir(parents=True)
        (masks / name).write_bytes(b"not looked into here")
    three = server.archive("three.tgz", tar_of(masks, "kit/dataset", "w:gz"))
    sets = {
        "voc": (Part("VOC", "kit/VOC", (one, two)),),
        "sbd": (Part("VOC/SBD", "kit/dataset", (three,), ("cls", "inst"), needs="VOC"),),
    }
    run = functools.partial(prepare, root=tmp_path / "root", sets=sets, tell=silent)
    with pytest.raises(InputError, match="VOC: 'sbd' belongs in it; prepare that first"):
        run("sbd")
    server.breaks.add("two.tar")
    assert len(run("voc")) == 0
    assert len(load_records("VOC:train", tmp_path / "root", TOY_CLASSES)) == 12
    asked = len(server.requests)
    assert len(run("voc")) == 0 and len(server.requests) == asked
    problems = run("sbd")
    assert set(problems["problem"].str.slice(0, 23)) == {"the mask cannot be read"}
    sources = find_masks(tmp_path / "root" / "VOC", "toy_000000", TOY_CLASSES, ())
    assert [source.kind for source in sources] == ["sbd-class", "sbd-instance"]
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == ["VOC", "archives"]
    assert not (tmp_path / "root" / "VOC" / "SBD" / "img").exists()


def test_coco_is_unpacked_into_its_layout(server, toy_root, tmp_path):
    to_coco(toy_root / "VOC2012", ["val"], tmp_path / "made")
    (tmp_path / "made" / "annotations" / "captions_val.json").write_text("{}")
    labels = server.archive("labels.zip", zip_of(tmp_path / "made" / "annotations", "annotations"))
    images = server.archive("val.zip", zip_of(tmp_path / "made" / "val", "val"))
    parts = (
        Part("coco/annotations", "annotations", (labels,), only=("instances_val.json",)),
        Part("coco/val", "val", (images,)),
    )
    said = []
    problems = prepare("coco", tmp_path / "root", {"coco": parts}, said.append)
    assert len(problems) == 0
    assert len(load_records("coco:val", tmp_path / "root", TOY_CLASSES)) == 6
    assert not (tmp_path / "root" / "coco" / "annotations" / "captions_val.json").exists()
    assert any("to download" in line for line in said) and any("6 images" in x for x in said)


def test_an_archive_put_there_by_hand_needs_no_server(toy_root, tmp_path):
    content = zip_of(toy_root / "VOC2012", "VOC")
    digest = hashlib.sha256(content).hexdigest()
    # Port 9 of this machine answers to nobody.
    archive = Archive("http://127.0.0.1:9/voc.zip", "sha256", digest, len(content), 0)
    sets = {"voc": (Part("VOC", "VOC", (archive,)),)}
    by_hand = r"download http://127\.0\.0\.1:9/voc\.zip by hand into .*archives and give it then"
    with pytest.raises(InputError, match=rf"voc\.zip: it cannot be downloaded .*{by_hand}"):
        prepare("voc", tmp_path, sets, silent)
    (tmp_path / "archives").mkdir(exist_ok=True)
    (tmp_path / "archives" / "voc.zip").write_bytes(content)
    assert len(prepare("voc", tmp_path, sets, silent)) == 0


def test_what_cannot_be_unpacked_leaves_nothing_behind(server, tmp_path):
    torn = server.archive("torn.zip", zip_of(Path(__file__).parent, "x")[:-40])
    other = server.archive("other.tar", tar_of(Path(__file__), "file"))
    sets = {"torn": (Part("A", "x", (torn,)),), "other": (Part("A", "x", (other,)),)}
    with pytest.raises(InputError, match=r"torn\.zip: it cannot be unpacked"):
        prepare("torn", tmp_path, sets, silent)
    with pytest.raises(InputError, match=r"other\.tar: there is no x in it"):
        prepare("other", tmp_path, sets, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["archives"]


def test_what_a_killed_call_left_is_removed(toy_root, tmp_path):
    content = zip_of(toy_root / "VOC2012", "VOC")
    archive = Archive("http://127.0.0.1:9/voc.zip", "sha256", "", len(content), 10**18)
    rest = tmp_path / ".unpacking-VOC" / "VOC"
    rest.mkdir(parents=True)
    (rest / "half").write_text("")
    with pytest.raises(InputError, match="needs .* GB here"):  # its room is counted as free
        prepare("voc", tmp_path, {"voc": (Part("VOC", "VOC", (archive,)),)}, silent)
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_server_lacks_and_a_small_disk_are_told(server, tmp_path):
    gone = server.archive("gone.zip", b"")
    del server.files["gone.zip"]
    huge = server.archive("huge.zip", b"", size=10**18)
    sets = {"gone": (Part("A", "a", (gone,)),), "huge": (Part("A", "a", (huge,)),)}
    with pytest.raises(InputError, match=r"gone\.zip: it cannot be downloaded .*404"):
        prepare("gone", tmp_path, sets, silent)
    asked = len(server.requests)
    with pytest.raises(InputError, match=r"'huge' needs 1000000000\.0 GB here but .* are free"):
        prepare("huge", tmp_path, sets, silent)
    assert len(server.requests) == asked == 1


def test_a_disk_that_fills_up_is_told_and_leaves_no_half_file(server, toy_root, tmp_path):
    content = zip_of(toy_root / "VOC2012", "VOC")
    sets = {"voc": (Part("VOC", "VOC", (server.archive("voc.zip", content),)),)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written \(File too large\); make room"):
            prepare("voc", tmp_path, sets, silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(server.requests) == 1, "it does not ask again and again"
    assert list((tmp_path / "archives").iterdir()) == []
    assert len(prepare("voc", tmp_path, sets, silent)) == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be written"):
        prepare("voc", tmp_path / "file", sets, silent)


def test_the_table_is_the_papers_data_with_torchvisions_checksums():
    assert list(SETS) == ["voc07+12", "sbd", "coco2017"]
    years = {archive.digest for part in SETS["voc07+12"] for archive in part.archives}
    assert years == {DATASET_YEAR_DICT[key]["md5"] for key in ("2007", "2007-test", "2012")}
    (sbd,) = SETS["sbd"]
    assert sbd.archives[0].digest == SBDataset.md5
    # Where als.data.masks looks for them beside the images of VOC2012.
    folder, _, below = sbd.target.partition("/")
    assert (folder, below, set(sbd.only)) == ("VOC2012", "SBD", {"cls", "inst"})
    for archive in (a for parts in SETS.values() for part in parts for a in part.archives):
        assert len(archive.digest) == {"md5": 32, "sha256": 64}[archive.algorithm]
        assert archive.unpacked > 10**8 and archive.size > 10**8


def test_the_commands_convert_and_name_what_they_do_not_know(toy_root, tmp_path, capsys):
    out = tmp_path / "out"
    main(["data", "to-coco", str(toy_root / "VOC2012"), "--splits", "val", "--out", str(out)])
    main(["data", "check", str(out)])
    assert "no broken file" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "prepare", "voc99", str(tmp_path)])
    assert "'voc99' is no data set that can be prepared" in capsys.readouterr().err
