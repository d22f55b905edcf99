"""A pod: serves, and connects when told, with one line for each "WORD ADDRESS:PORT" on stdin.

The server says "direct" once it has read what was announced: "say+N+TEXT" sends TEXT and N bytes more, in
pieces of all lengths, each byte the number of its place, modulo 251.

An address in brackets is connected to by an IPv6 socket. Prints the names of the peer and of the
socket, and what the server said; or "error", the number and the text.
"""

import os, socket, sys, threading
def serve(family, host, port):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, port)); s.listen(64)
    while True:
        threading.Thread(target=greet, args=(s.accept()[0],), daemon=True).start()
def greet(c):
    c.sendall(b"direct")
    c.settimeout(5)
    try:
        while c.recv(1 << 20): pass
    except OSError: pass
    c.close()
def say(s, number, text):
    data = text.replace("_", " ").encode("latin-1").decode("unicode_escape").encode("latin-1")
    data += bytes((len(data) + i) % 251 for i in range(int(number)))
    at, step = 0, 1
    while at < len(data):
        s.sendall(data[at:at + step]); at += step; step = step * 3 % 200003 + 1
    s.shutdown(socket.SHUT_WR)
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
        if word in ("again", "fill", "more"):
            s = kept
            if word == "fill": s.sendall(b"GET" + bytes((3 + i) % 251 for i in range(300000)))
            if word == "more": s.sendall(b"GET / HTTP/1.1")
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
        if word.startswith("say+"):
            say(s, *word.split("+")[1:])
        got = b"" if word in ("again", "fill", "more", "udp") else s.recv(200)
        print(*out, got.decode() or "-", flush=True)
    except OSError as e:
        print("error", e.errno, str(e).replace(" ", "_"), flush=True)
