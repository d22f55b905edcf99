"""A stream whose server goes without a word.

dead_peer.py PORT LOG: a server that answers each request with an endless chunked response.
dead_peer.py wait HOST PORT SECONDS KEEPALIVE: asks for it, prints a line once its first bytes are
there, and then JSON: how and after how many seconds the connection ended, or that it did not within
SECONDS. KEEPALIVE is IDLE,INTERVAL,COUNT in seconds, or "none".
"""

import json
import socket
import sys
import threading
import time


def serve(port):
    server = socket.create_server(("0.0.0.0", port))

    def answer(connection):
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"5\r\nhello\r\n")
        time.sleep(3600)

    while True:
        connection, _ = server.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def wait(host, port, seconds, keepalive):
    connection = socket.create_connection((host, port), timeout=10)
    if keepalive != "none":
        idle, interval, count = (int(part) for part in keepalive.split(","))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
    connection.sendall(b"GET /watch HTTP/1.1\r\nHost: web:8000\r\n\r\n")
    seen = b""
    while b"hello" not in seen:
        seen += connection.recv(65536)
    # Long enough for mirror to have looked at the connection.
    time.sleep(2)
    print("streaming", flush=True)
    began = time.monotonic()
    connection.settimeout(seconds)
    try:
        end = repr(connection.recv(65536))
    except TimeoutError:
        # ETIMEDOUT, which the kernel says, has a number; the timeout of this script has none.
        end = "open" if time.monotonic() - began >= seconds else "timed out"
    except OSError as error:
        end = type(error).__name__
    print(json.dumps({"end": end, "after": time.monotonic() - began}))


if sys.argv[1] == "wait":
    wait(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
else:
    serve(int(sys.argv[1]))
