"""What getpeername(2) and getsockname(2) tell an application: names.py HOST PORT."""

import json
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
with socket.create_connection((host, port), timeout=10) as stream:
    names = {"peer": stream.getpeername(), "own": stream.getsockname()}
    stream.sendall(f"GET /ip HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while piece := stream.recv(65536):
        answer += piece
names["answer"] = answer.decode()
print(json.dumps(names))
