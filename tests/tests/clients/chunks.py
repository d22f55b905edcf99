"""Uploads many chunks of one byte each, every one in a write of its own.

Usage: chunks.py URL COUNT. stdout: a JSON object: status, seconds, sha256 of what was sent.
"""

import hashlib
import json
import socket
import sys
import time
from urllib.parse import urlsplit

url, count = urlsplit(sys.argv[1]), int(sys.argv[2])
hasher = hashlib.sha256()
begin = time.monotonic()
client = socket.create_connection((url.hostname, url.port or 80), timeout=60)
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
client.sendall(
    f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
    "Transfer-Encoding: chunked\r\n\r\n".encode()
)
for number in range(count):
    byte = bytes([number % 251])
    hasher.update(byte)
    client.sendall(b"1\r\n" + byte + b"\r\n")
client.sendall(b"0\r\n\r\n")
answer = b""
while part := client.recv(65536):
    answer += part
status = int(answer.split(b" ")[1])
print(json.dumps({"status": status, "seconds": time.monotonic() - begin, "sha256": hasher.hexdigest()}))
