"""IPv6 sockets as applications make them: sockets6.py MODE HOST PORT TARGET.

only: IPV6_V6ONLY set; dual: cleared; bound: bound to the pod's own address first; mapped: HOST is an
IPv4 address, asked for as ::ffff:HOST; device: bound to eth0. Prints a JSON object: the names that
the socket tells, and the answer to GET TARGET.
"""

import json
import socket
import sys

mode, host, port, target = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
with socket.socket(socket.AF_INET6) as stream:
    stream.settimeout(10)
    if mode in ("only", "dual"):
        stream.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, mode == "only")
    if mode == "bound":
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            stream.bind((probe.getsockname()[0], 0))
    if mode == "device":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    if mode == "mapped":
        host = f"::ffff:{host}"
    stream.connect((host, port))
    names = {"peer": stream.getpeername()[:2], "own": stream.getsockname()[0]}
    stream.sendall(f"GET {target} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while piece := stream.recv(65536):
        answer += piece
names["answer"] = answer.decode()
print(json.dumps(names))
