"""Sends requests of all shapes, and takes down what it sent: HOST PORT PREFIX CONNECTIONS REQUESTS SIZE
SECONDS [SHAPES]. REQUESTS on each connection (0: until SECONDS have passed, with pauses), of 0 to SIZE bytes. Shapes: get,
post, chunked, pipelined. Prints JSON: for each request its number, method, length, digest and the client's
address; and what failed."""

import hashlib
import json
import random
import socket
import sys
import threading
import time

host, port, prefix, connections, requests, size, seconds = sys.argv[1:8]
shapes = sys.argv[8].split(",") if len(sys.argv) > 8 else ["get", "post", "chunked", "pipelined"]
requests, size, seconds = int(requests), int(size), float(seconds)
end = time.monotonic() + seconds
sent, failed, lock = [], [], threading.Lock()


def head(method, number, framing):
    return f"{method} /{number} HTTP/1.1\r\nHost: {host}:{port}\r\nX-Id: {number}\r\n{framing}\r\n".encode()


def chunked(content, random):
    parts, at = [], 0
    while at < len(content):
        part = content[at : at + random.choice([1, 17, 1000, 40000])]
        parts.append(b"%x\r\n%s\r\n" % (len(part), part))
        at += len(part)
    return b"".join(parts) + b"0\r\nX-Sum: 1\r\n\r\n"


def write(shape, number, random):
    if shape in ("get", "pipelined"):
        return "GET", b"", head("GET", number, "")
    length = int(size ** random.random()) if random.random() < 0.8 else random.randint(0, size)
    content = random.randbytes(length)
    if shape == "post":
        return "POST", content, head("POST", number, f"Content-Length: {length}\r\n") + content
    return "POST", content, head("POST", number, "Transfer-Encoding: chunked\r\n") + chunked(content, random)


def respond(stream):
    status = stream.readline()
    if not status:
        raise EOFError("the connection was closed")
    length = 0
    while (row := stream.readline()) not in (b"\r\n", b""):
        if row.lower().startswith(b"content-length:"):
            length = int(row.split(b":")[1])
    stream.read(length)
    if b" 200 " not in status:
        raise ValueError(status.decode())


def run(name):
    random_ = random.Random(f"{prefix}{name}")
    mine = []
    try:
        connection = socket.create_connection((host, int(port)), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own, stream = list(connection.getsockname()[:2]), connection.makefile("rb")
        done = 0
        while done < requests if requests else time.monotonic() < end:
            shape = random_.choice(shapes)
            batch = random_.randint(2, 9) if shape == "pipelined" else 1
            written = []
            for _ in range(batch):
                number = f"{prefix}-{name}-{done}"
                done += 1
                method, content, data = write(shape, number, random_)
                written.append(data)
                digest = hashlib.md5(content).hexdigest()
                mine.append(dict(id=number, method=method, length=len(content), digest=digest, peer=own))
            data = b"".join(written)
            if random_.random() < 0.2:
                cut = random_.randint(0, len(data))
                connection.sendall(data[:cut])
                data = data[cut:]
            connection.sendall(data)
            for _ in range(batch):
                respond(stream)
            if not requests:
                time.sleep(0.02)
        connection.close()
    except Exception as error:
        with lock:
            failed.append(f"{name}: {error!r}")
    with lock:
        sent.extend(mine)


threads = [threading.Thread(target=run, args=(n,)) for n in range(int(connections))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(dict(sent=sent, failed=failed)))
