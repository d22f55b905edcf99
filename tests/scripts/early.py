"""Uploads to a server that answers early: early.py URL MIB COUNT.

Sends until it is done or cannot go on, and only then reads, as a simple client does. stdout: a JSON
object that counts the answers by status and body.
"""

import collections
import json
import socket
import sys
from urllib.parse import urlsplit

url, mib, count = urlsplit(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
block = bytes(1 << 20)
answers = collections.Counter()
for _ in range(count):
    with socket.create_connection((url.hostname, url.port or 80), timeout=20) as client:
        head = f"PUT {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {mib << 20}\r\n\r\n"
        try:
            client.sendall(head.encode())
            for _ in range(mib):
                client.sendall(block)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    status, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    answers[f"{status[9:12]} {body}"] += 1
print(json.dumps(answers))
