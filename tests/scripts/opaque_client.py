"""Clients that do not speak HTTP: opaque_client.py MODE HOST PORT, see opaque_server.py."""

import hashlib
import json
import os
import socket
import sys
import time

mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
with socket.create_connection((host, port), timeout=10) as stream:
    if mode == "first":
        lines = stream.makefile("rwb", buffering=0)
        start = time.monotonic()
        said = [lines.readline().decode()]
        greeted = time.monotonic() - start
        for line in (b"noop\r\n", b"help\r\n", b"QUIT\r\n"):
            lines.write(line)
            said.append(lines.readline().decode())
        print(json.dumps({"said": said, "greeted": greeted, "end": lines.read().decode()}))
    else:
        # Begins like no protocol that is known.
        data = b"\x00\x01\x02" + os.urandom(5_000_000)
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
        expected = f"{len(data)} {hashlib.sha256(data).hexdigest()}"
        print(json.dumps({"answer": answer.decode(), "expected": expected}))
