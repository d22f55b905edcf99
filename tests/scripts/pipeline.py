"""Pipelined requests from a raw socket: all are sent before the first answer is read.

pipeline.py HOST PORT COUNT TAG: prints the ids in the order in which answers came.
"""

import json
import re
import socket
import sys

host, port, count, tag = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
requests = []
for i in range(count):
    if i % 2:
        body = b"b" * (i * 10)
        head = f"POST /anything?id={tag}-{i} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    else:
        requests.append(f"GET /anything?id={tag}-{i} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
with socket.create_connection((host, port), timeout=10) as stream:
    stream.sendall(b"".join(requests))
    stream.shutdown(socket.SHUT_WR)
    answers = b""
    while piece := stream.recv(65536):
        answers += piece
ids = re.findall(rf'"id": "({tag}-\d+)"', answers.decode())
print(json.dumps({"ids": ids, "statuses": answers.count(b"HTTP/1.1 200 OK\r\n")}))
