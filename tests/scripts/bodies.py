"""Bodies of many sizes and framings on one connection: bodies.py HOST PORT TAG SIZE...

Each size is sent counted, chunked, and chunked with two declared trailers, at some 50 MB/s: a
shadow that falls behind by more than the budget of a request is cut, and on a busy machine one does
at loopback's full speed. Prints the hash of each body by the id of its request.
"""

import hashlib
import json
import os
import socket
import sys
import time

host, port, tag, sizes = sys.argv[1], int(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4:]]
sums = {}


def chunked(body):
    """Chunks of growing size, the first of a single byte."""
    out, at, size = bytearray(), 0, 1
    while at < len(body):
        piece = body[at : at + size]
        out += b"%x\r\n%b\r\n" % (len(piece), piece)
        at, size = at + len(piece), min(size * 3, 100_000)
    return bytes(out) + b"0\r\n"


def send(stream, message):
    for at in range(0, len(message), 50_000):
        stream.sendall(message[at : at + 50_000])
        time.sleep(0.001)


with socket.create_connection((host, port), timeout=20) as stream:
    answers = stream.makefile("rb")
    for size in sizes:
        for way in ("counted", "chunked", "trailers"):
            body, ident = os.urandom(size), f"{tag}-{way}-{size}"
            sums[ident] = hashlib.sha256(body).hexdigest()
            head = f"POST /status/200?id={ident} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            if way == "counted":
                message = f"{head}Content-Length: {size}\r\n\r\n".encode() + body
            elif way == "chunked":
                message = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(body) + b"\r\n"
            else:
                head += "Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-Size\r\n\r\n"
                tail = f"X-Sum: {sums[ident]}\r\nX-Size: {size}\r\n\r\n"
                message = head.encode() + chunked(body) + tail.encode()
            send(stream, message)
            status = answers.readline()
            if not status.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"{ident}: {status!r}")
            length = 0
            while (line := answers.readline()) not in (b"\r\n", b""):
                name, value = line.split(b":", 1)
                length = int(value) if name.lower() == b"content-length" else length
            answers.read(length)
print(json.dumps(sums))
