"""Says one odd thing to HOST PORT on a connection, and prints the client's port once the server has had a
moment for it: SHAPE is tls, http2, redis, expect, connect, websocket, offer, twice, urgent or close."""

import json
import socket
import sys
import time

host, port, shape = sys.argv[1], int(sys.argv[2]), sys.argv[3]
field = f"Host: {host}:{port}\r\nX-Id: {shape}\r\n"
after = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nX-Id: {shape}-after\r\n\r\n"
texts = {
    "tls": "\x16\x03\x01\x00\x05hello",
    "http2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "redis": "*1\r\n$4\r\nPING\r\n",
    "binary": "\x00\x01\x02\x03",
    "expect": f"POST / HTTP/1.1\r\n{field}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok{after}",
    "connect": f"CONNECT a:1 HTTP/1.1\r\n{field}\r\n{after}",
    "websocket": f"GET / HTTP/1.1\r\n{field}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{after}",
    "offer": f"GET / HTTP/1.1\r\n{field}Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n{after}",
    "twice": f"POST / HTTP/1.1\r\n{field}Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    f"2\r\nok\r\n0\r\n\r\n{after}",
    "urgent": f"GET / HTTP/1.1\r\n{field}\r\n",
    "close": f"GET / HTTP/1.1\r\n{field}Connection: close\r\n\r\n{after}",
}
connection = socket.create_connection((host, port), timeout=5)
connection.sendall(texts[shape].encode("latin-1"))
if shape == "urgent":
    connection.recv(4096)
    connection.send(b"!", socket.MSG_OOB)
    connection.sendall(after.encode())
time.sleep(0.3)
connection.close()
print(json.dumps(connection.fileno()))
