import hashlib
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

from idm_ray.errors import UserError
from idm_ray.sweep.folders import output_of
from idm_ray.sweep.keeping import books as books_module
from idm_ray.sweep.keeping import uri as uri_module
from idm_ray.sweep.keeping.archive import (
    ARRIVING,
    PIECE,
    Archive,
    ArchiveDepot,
    copied_to,
    fetch_store_file,
    start_archive,
)
from idm_ray.sweep.keeping.books import Books, bring_books, names_behind
from idm_ray.sweep.keeping.depot import checked
from idm_ray.sweep.keeping.uri import UriDepot, check_writable, joined, shown
from idm_ray.sweep.keeping.workplace import Keeping, Workplace

SECRET = "not-to-be-seen"


@pytest.fixture(scope="module")
def store():
    """A real S3 server on loopback with a bucket, and the usual environment for it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    usual = {
        "AWS_ACCESS_KEY_ID": "us",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in usual}
    os.environ.update(usual)
    files = S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True)
    files.create_dir("bucket")
    yield "s3://bucket/runs"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(params=["ray", "s3", "file"])
def depot(request, tmp_path):
    """Each kind, empty."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
        kept = tmp_path / "kept"
        kept.mkdir()
        return ArchiveDepot(start_archive(kept, tmp_path / "store"))
    if request.param == "s3":
        return UriDepot(joined(request.getfixturevalue("store"), tmp_path.name), 5)
    return UriDepot(f"file://{tmp_path / 'kept'}", 5)


def file_of(tmp_path, content, name="sent"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.ray
def test_what_is_kept_comes_back_whole(depot, tmp_path):
    large = os.urandom(PIECE + 5)
    for content in (b"", b"small", large, large[:PIECE]):
        digest = depot.put("trials/0007/state", file_of(tmp_path, content))
        assert digest == hashlib.sha256(content).hexdigest()
        depot.get("trials/0007/state", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content


@pytest.mark.ray
def test_names_are_those_of_a_folder_and_below(depot, tmp_path):
    sent = file_of(tmp_path, b"x")
    for name in ("trials/0001/b", "trials/0001/deep/a", "trials/0002/a", "trials/00011"):
        depot.put(name, sent)
    assert depot.names("trials/0001") == ["trials/0001/b", "trials/0001/deep/a"]
    assert depot.names("trials/0009") == []
    assert len(depot.names("")) == 4
    depot.remove("trials/0001/b")
    depot.remove("trials/0001/never")
    assert depot.names("trials/0001") == ["trials/0001/deep/a"]


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_all_that_is_kept_of_a_sweep_is_weighed_and_removed_and_nothing_beside_it(kind, tmp_path, request):
    root = request.getfixturevalue("store") if kind == "s3" else f"file://{tmp_path / 'kept'}"
    one, other = (UriDepot(joined(root, f"{tmp_path.name}-{name}"), 5) for name in ("a", "ab"))
    for name in ("study.db", "trials/0001/a", ".uid"):
        one.put(name, file_of(tmp_path, b"four"))
        other.put(name, file_of(tmp_path, b"four"))
    assert one.size() == 12
    one.remove_all()
    assert one.names("") == []
    assert one.size() == 0
    one.remove_all()
    assert other.size() == 12


@pytest.mark.ray
def test_an_image_store_comes_in_pieces_that_are_counted(cluster, tmp_path):
    content = os.urandom(2 * PIECE + 5)
    (tmp_path / "store").mkdir()
    archive = start_archive(tmp_path, tmp_path / "store")
    assert copied_to(archive) == {}
    fetch_store_file(ray.get_actor(archive), file_of(tmp_path / "store", content).name, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert copied_to(archive) == {ray.get_runtime_context().get_node_id(): 3 * PIECE}
    assert copied_to("nobody") == {}


@pytest.mark.ray
def test_what_is_not_kept_cannot_be_had_and_leaves_what_is_here(depot, tmp_path):
    here = file_of(tmp_path, b"old", "here")
    with pytest.raises(FileNotFoundError):
        depot.get("never", here)
    assert here.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "./a"])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    with pytest.raises(ValueError, match="no name of a file"):
        checked(name)
    with pytest.raises(ValueError, match="no name of a file"):
        Archive(str(tmp_path), str(tmp_path)).finish(name, "draft", "")


def test_an_archive_takes_pieces_in_any_order_twice_and_refuses_a_wrong_whole(tmp_path):
    archive, digest = Archive(str(tmp_path), str(tmp_path)), hashlib.sha256(b"abcdef").hexdigest()
    for offset, piece in ((3, b"def"), (0, b"abc"), (3, b"def")):
        archive.write("draft", offset, piece)
    assert archive.finish("a/file", "draft", digest)
    assert archive.finish("a/file", "draft", digest)  # asked again: the first answer was lost
    archive.write("other", 0, b"abcdeX")
    assert not archive.finish("a/file", "other", digest)
    assert (tmp_path / "a" / "file").read_bytes() == b"abcdef"
    assert not list((tmp_path / ARRIVING).iterdir())


@pytest.mark.ray
def test_a_workplace_has_what_is_kept_and_hands_over_what_it_makes(depot, tmp_path):
    ours, theirs = Workplace(tmp_path / "ours", depot), Workplace(tmp_path / "theirs", depot)
    condensed = ours.trial(3) / "condensed"
    condensed.mkdir(parents=True)
    (condensed / "a.bin").write_bytes(b"one")
    (ours.trial(3) / "note").write_bytes(b"two")
    digests = ours.deliver(condensed, ours.trial(3) / "note")
    assert digests == {
        "trials/0003/condensed/a.bin": hashlib.sha256(b"one").hexdigest(),
        "trials/0003/note": hashlib.sha256(b"two").hexdigest(),
    }
    (theirs.trial(3) / "condensed").mkdir(parents=True)
    (theirs.trial(3) / "condensed" / "old.bin").write_bytes(b"of before")
    theirs.fetch_folder(theirs.trial(3) / "condensed")
    assert [path.name for path in (theirs.trial(3) / "condensed").iterdir()] == ["a.bin"]
    assert theirs.lacking(digests) == []
    assert theirs.lacking({**digests, "trials/0003/note": "0" * 64, "never": "1" * 64}) == [
        "trials/0003/note",
        "never",
    ]
    ours.remove(ours.trial(3) / "note")
    theirs.fetch(theirs.trial(3) / "note")
    assert not (theirs.trial(3) / "note").exists()
    assert theirs.names(theirs.trial(3) / "condensed", "*.bin") == ["a.bin"]
    theirs.leave(theirs.folder)
    assert not theirs.folder.exists()


def test_a_machine_that_sees_the_sweeps_folder_works_there(tmp_path):
    keeping = Keeping(str(tmp_path), "nonce", "archive")
    (tmp_path / ".nonce").write_text("nonce")
    assert keeping.workplace.folder == tmp_path
    assert keeping.workplace.kept_here
    assert keeping.workplace.deliver(tmp_path / "never") == {}


def test_a_store_that_is_away_for_a_while_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(uri_module, "PAUSES", (0.01,))
    told = []
    depot, failures = UriDepot(f"file://{tmp_path / 'kept'}", 5, told.append), 3
    put = depot._put

    def away(name, source):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError("connection refused")
        return put(name, source)

    monkeypatch.setattr(depot, "_put", away)
    depot.put("name", file_of(tmp_path, b"x"))
    assert depot.names("") == ["name"]
    assert "kept does not answer (connection refused); tried for 5 s more" in told[0]
    assert told[1:] == [f"file://{tmp_path / 'kept'} answers again"]
    failures = 10**9
    monkeypatch.setattr(depot, "_patience", 0.05)
    with pytest.raises(OSError, match="refused"):
        depot.put("name", file_of(tmp_path, b"x"))


def test_a_store_that_says_nothing_is_told_of_while_it_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(uri_module, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(books_module, "LOOK_SECONDS", 0.05)
    said, told, asked = threading.Event(), [], threading.Event()
    depot = UriDepot(f"file://{tmp_path / 'kept'}", 5, lambda line: (told.append(line), said.set()))
    look = depot._files.get_file_info

    class Silent:
        type_name = "local"

        def get_file_info(self, path):
            asked.set()
            assert said.wait(10)
            return look(path)

    monkeypatch.setattr(depot, "_files", Silent())
    books = Books(tmp_path, depot)  # nothing is to be copied, and yet it looks
    assert asked.wait(10)
    while len(told) < 2:
        time.sleep(0.01)
    assert told[0].endswith("kept has not answered for 0 s")
    assert told[1].endswith("kept answers again")
    books.close()


def test_a_bucket_that_is_not_there_is_refused_in_one_line(store):
    check_writable(store)
    with pytest.raises(UserError, match=r"s3://nobody/runs cannot be written: .*NO_SUCH_BUCKET") as refused:
        check_writable("s3://nobody/runs")
    assert "\n" not in str(refused.value)


def test_several_machines_try_a_store_at_the_same_time(store, tmp_path):
    uri = f"file://{tmp_path / 'kept'}"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(check_writable, [uri, store] * 20))
    assert not list((tmp_path / "kept").iterdir())


def test_what_no_store_is_for_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be opened"):
        UriDepot("carrier-pigeon://roof/runs", 5)


def test_a_uri_is_shown_without_what_may_be_secret():
    assert shown("s3://us:key@bucket/runs?endpoint_override=x&secret_key=y") == "s3://bucket/runs"
    assert joined("s3://bucket/runs/?region=eu", "s") == "s3://bucket/runs/s?region=eu"


def test_newer_books_replace_older_ones_and_never_the_other_way(tmp_path):
    uri = f"file://{tmp_path / 'kept'}"
    depot = UriDepot(joined(uri, "s"), 5)
    depot.put("edition.json", file_of(tmp_path, b'{"edition": 2, "mark": "theirs"}'))
    for name in (
        "summary.json",
        ".uid",
        "trials/0000/condensed/a",
        "trials/0000/checkpoint/state",
        "real/ab/1",
    ):
        depot.put(name, file_of(tmp_path, b"new"))
    bring_books(uri, "s", tmp_path / "here")
    assert names_behind(uri) == ["s"]
    brought = {
        path.relative_to(tmp_path / "here" / "s").as_posix()
        for path in (tmp_path / "here" / "s").rglob("*")
        if path.is_file()
    }
    assert output_of(tmp_path / "here" / "s") == uri  # what commands name that are printed
    assert brought == {"edition.json", "summary.json", ".uid", "trials/0000/condensed/a"}
    (tmp_path / "here" / "s" / "edition.json").write_text('{"edition": 3, "mark": "ours"}')
    (tmp_path / "here" / "s" / "summary.json").write_text("newest")
    bring_books(uri, "latest", tmp_path / "here")
    assert (tmp_path / "here" / "s" / "summary.json").read_text() == "newest"


@pytest.mark.ray
def test_a_sweep_behind_a_uri_is_whole_there_and_tells_no_secret(start, call, store, tmp_path):
    sweep = start(
        "--name", "s", "--trials", "2", "evaluate.references=[]", "--output-dir", joined(store, tmp_path.name)
    )
    assert sweep.finish() == 0, sweep.output
    depot = UriDepot(joined(store, f"{tmp_path.name}/s"), 5)
    names = depot.names("")
    for number in range(2):
        for name in (
            "checkpoint/00000006.safetensors",
            "condensed/images.safetensors",
            "steps/000006.png",
            "trial.yaml",
        ):
            assert f"trials/{number:04d}/{name}" in names
    assert {"study.db", "sweep.yaml", "summary.json", "report.html"} <= set(names)
    assert SECRET not in sweep.output
    assert re.search(r"extend: .*--output-dir s3://bucket/runs/", sweep.output)
    for name in names:
        depot.get(name, tmp_path / "all" / name)
    assert not [
        path
        for path in (tmp_path / "all").rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    again = call("sweep", "--resume", "s", "--output-dir", joined(store, tmp_path.name))
    assert again.code == 0, again
    assert "nothing is left to do" in again.output
