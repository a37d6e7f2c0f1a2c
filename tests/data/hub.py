"""A loopback server that answers the hub's API for small data sets, faults included."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def commit(revision: str) -> str:
    """The commit that a revision stands for."""
    return hashlib.sha1(revision.encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves `data_sets[id][revision][path] -> bytes`.

    Attributes:
        faults: Path of a file -> fault of its download: "drop" (the connection breaks half-way,
            once), "dead" (it breaks every time) or "size" (tree and headers claim a byte too many).
        requests: Every request line.
    """

    daemon_threads = True

    def __init__(self, data_sets: dict[str, dict[str, dict[str, bytes]]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data_sets = data_sets
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision or commit."""
        for known, files in self.data_sets.get(name, {}).items():
            if revision in (known, commit(known)):
                return commit(known), files
        return None

    def handle_error(self, request, client_address):
        """A broken connection is part of the tests."""


@contextmanager
def running(hub: Hub):
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            name, kind, *rest = "/".join(parts[2:4]), *(parts[4:] or ["revision"])
            found = self.server.files(name, rest[0] if rest else "main")
            if not found:
                return self._missing(
                    "RepoNotFound" if name not in self.server.data_sets else "RevisionNotFound"
                )
            return self._api(name, kind, rest[1:], *found, body)
        if parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            found = self.server.files("/".join(parts[1:3]), parts[4])
            path = "/".join(parts[5:])
            if not found or path not in found[1]:
                return self._missing("EntryNotFound" if found else "RevisionNotFound")
            return self._file(path, found[1][path], found[0])
        return self._missing("EntryNotFound")

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _api(self, name, kind, folder, sha, files, body):
        def entry(path):
            claimed = len(files[path]) + (self.server.faults.get(path) == "size")
            return {
                "type": "file",
                "path": path,
                "size": claimed,
                "oid": hashlib.sha1(files[path]).hexdigest(),
            }

        if kind == "revision":
            value = {
                "id": name,
                "sha": sha,
                "private": False,
                "gated": False,
                "tags": [],
                "downloads": 0,
            }
            value["siblings"] = [{"rfilename": path} for path in files]
        elif kind == "tree":
            prefix = "".join(part + "/" for part in folder)
            below = [path for path in files if path.startswith(prefix)]
            if not below:
                return self._missing("EntryNotFound")
            deep = "recursive=true" in self.path.lower()
            folders = {
                prefix + path[len(prefix) :].split("/")[0]
                for path in below
                if "/" in path[len(prefix) :]
            }
            value = [
                {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
                for path in sorted(folders)
            ]
            value += [entry(path) for path in below if deep or "/" not in path[len(prefix) :]]
        else:  # paths-info
            asked = json.loads(body)["paths"]
            value = [entry(path) for path in files if path in asked]
        return self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, path, content, sha):
        fault = self.server.faults.get(path)
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
        }
        if fault == "size" and self.command == "HEAD":
            return self._send(200, content + b"?", headers)
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault in ("drop", "dead") and self.command == "GET":
            if fault == "drop":
                del self.server.faults[path]
            self._send(200, content[start:], headers, sent=(len(content) - start) // 2)
            self.close_connection = True
            return self.connection.shutdown(2)
        return self._send(206 if start else 200, content[start:], headers)

    def _missing(self, code):
        return self._send(404, b'{"error": "not found"}', {"X-Error-Code": code})

    def _send(self, status, body, headers, sent=None):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def log_message(self, *args):
        """Stay quiet."""
