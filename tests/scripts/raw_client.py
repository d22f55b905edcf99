"""Requests from raw sockets, each as it is given: raw_client.py HOST PORT LINE...

A line is a head without its empty line, with \\n for each line's end; those that begin with "=" go on
the connection of the line before. Prints the status of each response, null where there is none.
"""

import json
import re
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
statuses, stream = [], None


def response(stream):
    got = b""
    while b"\r\n\r\n" not in got:
        try:
            piece = stream.recv(65536)
        except (ConnectionResetError, TimeoutError):
            return None
        if not piece:
            return None
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        body += stream.recv(65536)
    return int(head.split(b" ")[1])


for line in sys.argv[3:]:
    if not line.startswith("="):
        stream = socket.create_connection((host, port), timeout=10)
    head = line.removeprefix("=").replace("\\n", "\r\n")
    stream.sendall(head.encode("latin-1") + b"\r\n\r\n")
    statuses.append(response(stream))
print(json.dumps(statuses))
