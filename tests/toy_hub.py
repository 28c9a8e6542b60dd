"""A hub on this machine with one data set: as much of its protocol as `datasets` and its file system speak."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def hub(name, files, fail=None):
    """Serves a data set's files; gives the address, and a list of what was asked for.

    Args:
        files: bytes by path.
        fail: is asked with path and range before each answer of a file's content; True refuses it.
    """
    asked = []
    handler = type(
        "Handler",
        (_Handler,),
        {"name": name, "files": files, "fail": staticmethod(fail or (lambda *_: False)), "asked": asked},
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/paths-info/" in self.path:
            try:
                paths = json.loads(body)["paths"]
            except ValueError:
                paths = [unquote(part.split("=")[1]) for part in body.decode().split("&") if part.startswith("paths=")]
            self._send(json.dumps([entry for path in paths for entry in self._entries(path)]).encode())
        else:
            self._send(b"{}", 404)

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        api = f"/api/datasets/{self.name}"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            told = {"id": self.name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": []}
            siblings = [{"rfilename": file} for file in self.files]
            self._send(json.dumps(told | {"_id": "1", "downloads": 0, "likes": 0, "siblings": siblings}).encode())
        elif match := re.fullmatch(rf"{api}/tree/[^/]+(?:/(.*))?", path):
            under = f"{match[1]}/" if match[1] else ""
            folders = {under + file[len(under) :].split("/")[0] for file in self.files if file.startswith(under)}
            deep = "recursive=true" in self.path.lower()
            found = [file for file in self.files if file.startswith(under)] if deep else folders
            self._send(json.dumps([entry for file in sorted(found) for entry in self._entries(file)]).encode())
        elif match := re.fullmatch(rf"/datasets/{self.name}/resolve/[^/]+/(.*)", path):
            self._file(match[1])
        else:
            self._send(b'{"error": "not found"}', 404)

    def _entries(self, path):
        if path in self.files:
            size = len(self.files[path])
            return [{"type": "file", "path": path, "size": size, "oid": f"{hash(path) & 0xFFFF:040x}"}]
        if any(file.startswith(f"{path}/") for file in self.files):
            return [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40}]
        return []

    def _file(self, path):
        if path not in self.files:
            self._send(b"Entry not found", 404, {"X-Error-Code": "EntryNotFound"})
            return
        data, asked = self.files[path], self.headers.get("Range")
        if self.command == "GET":
            self.asked.append((path, asked))
            if self.fail(path, asked):
                self._send(b"no", 403)
                return
        if asked:
            start, end = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
            last = min(int(end or len(data)), len(data) - 1)
            span = {"Content-Range": f"bytes {start}-{last}/{len(data)}"}
            self._send(data[int(start) : last + 1], 206, span)
        else:
            self._send(data)

    def _send(self, data, status=200, headers=None):
        self.send_response(status)
        own = {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, "ETag": f'"{hash(self.path) & 0xFFFF:x}"'}
        for key, value in (own | {"Accept-Ranges": "bytes"} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
