"""A server of HTTP/1 that takes down what it got: for each request its number (X-Id), method, length
and digest of the content, trailers, and the client's address; "whole" is false where the connection ended
before it. PORT LOG"""

import hashlib
import json
import socket
import sys
import threading

LOCK = threading.Lock()


class Ended(Exception):
    pass


class Reader:
    def __init__(self, connection):
        self.connection, self.buffer = connection, b""

    def more(self):
        data = self.connection.recv(1 << 18)
        if not data:
            raise Ended
        self.buffer += data

    def until(self, end):
        while end not in self.buffer:
            self.more()
        part, _, self.buffer = self.buffer.partition(end)
        return part

    def take(self, length, digest):
        while length:
            if not self.buffer:
                self.more()
            part, self.buffer = self.buffer[:length], self.buffer[length:]
            digest.update(part)
            length -= len(part)


def read(reader, seen):
    head = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in head[1:])}
    seen.update(id=fields.get("x-id"), method=head[0].split(" ")[0], host=fields.get("host"))
    seen.update(length=0, whole=False, trailers=[])
    digest = hashlib.md5()
    if fields.get("expect"):
        reader.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if fields.get("transfer-encoding"):
        while size := int(reader.until(b"\r\n").split(b";")[0], 16):
            reader.take(size, digest)
            reader.until(b"\r\n")
            seen["length"] += size
        while row := reader.until(b"\r\n"):
            seen["trailers"].append(row.decode())
    else:
        length = int(fields.get("content-length", 0))
        reader.take(length, digest)
        seen["length"] = length
    seen.update(digest=digest.hexdigest(), whole=True)
    return fields.get("connection", "").lower() != "close"


def serve(connection, peer, log):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader, goes_on = Reader(connection), True
    while goes_on:
        seen = {}
        try:
            goes_on = read(reader, seen)
        except (Ended, OSError):
            goes_on = False
        if seen:
            seen["peer"] = peer
            with LOCK:
                log.write(json.dumps(seen) + "\n")
                log.flush()
        if seen.get("whole"):
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except OSError:
                break
    connection.close()


listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
with open(sys.argv[2], "a") as log:
    while True:
        connection, address = listener.accept()
        peer = [address[0].removeprefix("::ffff:"), address[1]]
        threading.Thread(target=serve, args=(connection, peer, log), daemon=True).start()
