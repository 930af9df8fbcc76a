"""A server on this machine that plays the Hugging Face hub: it sends files, resumes, stalls, breaks off and refuses."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 65_536


class Server(ThreadingHTTPServer):
    """`requests` lists (path, Range header). The switches may be set at any time.

    slow_after: bytes after which it crawls. break_after: bytes after which it closes the connection, once.
    ranges: whether it knows the Range header. status: what it answers instead of a file, a list that is used up.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.status = files, [], []
        self.slow_after = self.break_after = None
        self.ranges = True

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that is killed is no news."""


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if server.status:
            return self.send_error(server.status.pop(0))
        if (content := server.files.get(self.path)) is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(content) > 0:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        for place in range(start, len(content), PIECE):
            if server.break_after is not None and place >= server.break_after:
                server.break_after = None
                return self.wfile.flush()
            if server.slow_after is not None and place >= server.slow_after:
                time.sleep(0.2)
            self.wfile.write(content[place : place + PIECE])

    def log_message(self, *arguments):
        """Quiet."""


@contextlib.contextmanager
def serve(files):
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
