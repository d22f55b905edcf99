"""A pod: serves, and connects when told, with one line for each "WORD ADDRESS:PORT" on stdin.

An address in brackets is connected to by an IPv6 socket. Prints the names of the peer and of the
socket, and what the server said; or "error", the number and the text.
"""

import os, socket, sys, threading
def serve(family, host, port):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, port)); s.listen(64)
    while True:
        c, _ = s.accept(); c.sendall(b"direct"); c.close()
hosts = [(socket.AF_INET, "10.99.0.1")]
if "NO_IPV6" not in os.environ: hosts.append((socket.AF_INET6, "fd00:99::1"))
for family, host in hosts:
    for port in (80, 81):
        threading.Thread(target=serve, args=(family, host, port), daemon=True).start()
kept = None
def name(a): return ("[%s]:%d" if ":" in a[0] else "%s:%d") % a[:2]
print("ready", flush=True)
for line in sys.stdin:
    word, address = line.split(); host, port = address.rsplit(":", 1)
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    host = host.strip("[]")
    try:
        if word == "again":
            s = kept
        else:
            s = socket.socket(family, socket.SOCK_DGRAM if word == "udp" else socket.SOCK_STREAM)
            s.settimeout(5)
            if word == "bound": s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            if word == "only": s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if word == "dual": s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if word == "loop": s.bind(("::1", 0))
            if word == "mesh": os.setresuid(1337, 0, 0)
            s.connect((host, int(port)))
            os.setresuid(0, 0, 0)
        if word == "keep":
            kept = s
        out = [name(s.getpeername()), name(s.getsockname())]
        got = b"" if word in ("again", "udp") else s.recv(200)
        print(*out, got.decode() or "-", flush=True)
    except OSError as e:
        print("error", e.errno, str(e).replace(" ", "_"), flush=True)
