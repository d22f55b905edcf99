"""Requests that HTTP/2 forbids, or that mean something else in HTTP/1: h2_odd.py HOST PORT.

Each on a connection of its own, by hand, as no library would send them. Prints a JSON object: what
came of each, which is the answer's status, or how the stream or the connection was ended.
"""

import json
import socket
import sys

from hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

host, port = sys.argv[1], int(sys.argv[2])
AUTHORITY = (":authority", f"{host}:{port}")


def head(path, *fields, method="GET", scheme="http", authority=AUTHORITY):
    pseudo = [(":method", method), (":scheme", scheme), (":path", path)]
    return pseudo + ([authority] if authority else []) + list(fields)


ODD = {
    "plain": (head("/plain"), None),
    "transfer-encoding": (head("/te", ("transfer-encoding", "chunked"), method="POST"), b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    "connection": (head("/connection", ("connection", "x-field"), ("x-field", "1")), None),
    "upper case": (head("/upper", ("X-Upper", "1")), None),
    "line break in a value": (head("/value", ("x-a", "1\r\nx-evil: 2")), None),
    "line break in a name": (head("/name", ("x-a: 1\r\nx-evil", "2")), None),
    "line break in a path": (head("/path HTTP/1.1\r\nx-evil: 2\r\nx: "), None),
    "space in a path": (head("/a b"), None),
    "line break in an authority": (head("/authority", authority=(":authority", "web\r\nx-evil: 2")), None),
    "space in a method": (head("/method", method="GET /smuggled HTTP/1.1\r\nx:"), None),
    "two lengths": (head("/lengths", ("content-length", "4"), ("content-length", "5"), method="POST"), b"12345"),
    "length too large": (head("/large", ("content-length", "10"), method="POST"), b"12345"),
    "length too small": (head("/small", ("content-length", "2"), method="POST"), b"12345"),
    "no path": ([(":method", "GET"), (":scheme", "http"), AUTHORITY], None),
    "two paths": (head("/one", (":path", "/two")), None),
    "pseudo after a field": ([(":method", "GET"), ("x-a", "1"), (":scheme", "http"), (":path", "/late"), AUTHORITY], None),
    "host beside authority": (head("/hosts", ("host", "elsewhere")), None),
    "host alone": (head("/host", ("host", f"{host}:{port}"), authority=None), None),
    "neither": (head("/nobody", authority=None), None),
    "crumbs": (head("/crumbs", ("cookie", "a=1"), ("cookie", "b=2")), None),
}


def frames(stream):
    """What comes, frame by frame, until the connection ends or is silent for 2 s."""
    data = b""
    while True:
        while len(data) >= 9 and len(data) >= 9 + (length := Frame.parse_frame_header(memoryview(data)[:9])[1]):
            frame, _ = Frame.parse_frame_header(memoryview(data)[:9])
            frame.parse_body(memoryview(data)[9 : 9 + length])
            data = data[9 + length :]
            yield frame
        piece = stream.recv(65536)
        if not piece:
            return
        data += piece


def outcome(fields, body):
    with socket.create_connection((host, port), timeout=2) as stream:
        block = Encoder().encode(fields)
        flags = ["END_HEADERS"] + ([] if body else ["END_STREAM"])
        sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
        sent += HeadersFrame(1, block, flags=flags).serialize()
        if body:
            sent += DataFrame(1, body, flags=["END_STREAM"]).serialize()
        stream.sendall(sent)
        decoder = Decoder()
        try:
            for frame in frames(stream):
                if isinstance(frame, GoAwayFrame) and frame.error_code:
                    return f"GOAWAY {frame.error_code}"
                if isinstance(frame, RstStreamFrame):
                    return f"RST {frame.error_code}"
                if isinstance(frame, (HeadersFrame, ContinuationFrame)):
                    return int(dict(decoder.decode(frame.data))[":status"])
        except TimeoutError:
            return "silence"
        except ConnectionError as error:
            return type(error).__name__
        return "closed"


print(json.dumps({name: outcome(*odd) for name, odd in ODD.items()}))
