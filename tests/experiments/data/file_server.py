"""A web server in a thread, which misbehaves as real ones do."""

from __future__ import annotations

import contextlib
import http.server
import re


class Server(http.server.ThreadingHTTPServer):
    """Serves files; the attributes say how it misbehaves."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.requests = []  # (name, range) of each request
        self.cut_after = []  # the bytes after which the next answers break off
        self.failing = 0  # how many answers are a 503
        self.ranges = True
        self.lengths = True
        self.wrong_range = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/files"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, name = self.server, self.path.rpartition("/")[2]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.requests.append((name, self.headers.get("Range")))
        assert self.headers["Accept-Encoding"] == "identity"
        if server.failing:
            server.failing -= 1
            return self.send_error(503)
        if name not in server.files:
            return self.send_error(404)
        content = server.files[name]
        start = int(asked[1]) if asked and server.ranges else 0
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            first = 0 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + server.cut_after.pop(0) if server.cut_after else len(content)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content[start:stop])
        self.close_connection = True
        return None
