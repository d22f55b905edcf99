"""An HTTP/1.1 server that writes down the bytes of every request's head: witness.py PORT LOG.

A JSON line for each request: the head's lines as they came, the body's hash, the trailer lines.
The answers are fixed bytes, so that a client can compare them.
"""

import hashlib
import json
import socketserver
import sys

LOG = open(sys.argv[2], "a", buffering=1)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.lines():
            body, trailers = self.body(head)
            record = {"head": head, "body": hashlib.sha256(body).hexdigest(), "trailers": trailers}
            LOG.write(json.dumps(record) + "\n")
            self.answer(head[0].split(" ")[0])

    def lines(self):
        """Lines up to an empty one; none at the end of the connection."""
        lines = []
        while line := self.rfile.readline():
            line = line.decode("latin-1").removesuffix("\r\n")
            if not line:
                return lines
            lines.append(line)
        return []

    def body(self, head):
        fields = {}
        for line in head[1:]:
            name, value = line.split(":", 1)
            fields[name.lower()] = value.strip()
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body, self.lines()
        return self.rfile.read(int(fields.get("content-length", "0"))), []

    def answer(self, method):
        self.wfile.write(
            b"HTTP/1.1 200 Fine\r\nServer: witness\r\nX-ODD-case: 1\r\nset-cookie: a=1\r\n"
            b"Set-Cookie: b=2\r\nDate: Tue, 29 Oct 2024 08:59:16 GMT\r\nContent-Length: 6\r\n\r\n"
        )
        if method != "HEAD":
            self.wfile.write(b"hello\n")
        self.wfile.flush()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True


Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
