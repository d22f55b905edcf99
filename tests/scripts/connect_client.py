"""A client of connect_server.py: connect_client.py HOST PORT. Prints a JSON object."""

import json
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])


def exchange(target, data):
    """The answer's first line, and all that came after its head."""
    with socket.create_connection((host, port), timeout=10) as stream:
        stream.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (piece := stream.recv(65536)):
                return [answer.decode(), None]
            answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = None
        if b" 200 " in head:
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
        else:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) != length and (piece := stream.recv(65536)):
            rest += piece
        return [head.split(b"\r\n")[0].decode(), rest.decode()]


first, last = exchange("elsewhere:443", b"some bytes " * 20000)
same = last == "hello " + "SOME BYTES " * 20000 + " bye"
print(json.dumps({"agreed": [first, same], "refused": exchange("elsewhere:1", b"")}))
