"""A client of h2_server.py that looks at single streams: h2_streams.py HOST PORT TAG.

Prints a JSON object: what came back of each way to end a stream, of trailers, of 1xx answers.
"""

import json
import sys

from h2peer import Peer

host, port, tag = sys.argv[1:]
CODES = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "REFUSED_STREAM", "CANCEL", "ENHANCE_YOUR_CALM"]
peer = Peer(host, port)
result = {}


def show(stream):
    fields, body = sorted(stream.headers), stream.body.decode()
    return {"status": stream.status, "headers": fields, "body": body, "trailers": stream.trailers, "reset": stream.reset}


# The server resets: before a response, and in the middle of one.
result["reset"] = {code: show(peer.get(f"/reset/{code}?id={tag}-r"))["reset"] for code in CODES[1:]}
result["cut"] = {code: show(peer.get(f"/cut/{code}?id={tag}-c")) for code in CODES[1:]}

# The client resets a request that is complete, and one in the middle of its body.
for code in CODES[1:]:
    whole = peer.open("GET", f"/hang?id={tag}-whole-{code}")
    part = peer.open("POST", f"/hang?id={tag}-part-{code}", end=False)
    peer.send(part, b"some")
    # A response to a later stream: the others have arrived.
    peer.get(f"/echo?id={tag}-after")
    peer.reset(whole, code)
    peer.reset(part, code)
    peer.flush()
    peer.get(f"/echo?id={tag}-after")

# The client resets a stream in progress both ways, and one that it only reads.
for name, end in (("both", False), ("read", True)):
    number = peer.open("POST", f"/open?id={tag}-{name}", end=end)
    peer.flush()
    peer.receive(lambda: peer.streams[number].body == b"open")
    if not end:
        peer.send(number, b"some")
    peer.get(f"/echo?id={tag}-after")
    peer.reset(number, "CANCEL")
    peer.flush()
    peer.get(f"/echo?id={tag}-after")

# Twice as many resets in one write as hyper's h2 allows to wait (its default is 20).
peer.get(f"/echo?id={tag}-before")
for i in range(40):
    number = peer.open("GET", f"/hang?id={tag}-burst-{i}")
    peer.reset(number, "CANCEL")
peer.flush()
result["after_burst"] = peer.get(f"/echo?id={tag}-burst").status

# Fields after the body, both ways, and interim responses before it.
number = peer.open("POST", f"/trailers?id={tag}-t", [("trailer", "x-hash"), ("te", "trailers")], end=False)
peer.send(number, b"body")
peer.h2.send_headers(number, [("x-hash", "abc")], end_stream=True)
result["trailers"] = show(peer.wait(number))
stream = peer.get(f"/hints?id={tag}-h")
result["hints"], result["hinted"] = stream.hints, show(stream)

# A response while the request is not complete.
number = peer.open("POST", f"/early?id={tag}-e", end=False)
peer.send(number, b"x" * 1000)
result["early"] = show(peer.wait(number))

result["goaway"] = peer.goaway
print(json.dumps(result))
