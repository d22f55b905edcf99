"""A gRPC client of grpc_server.py: grpc_client.py MODE HOST PORT TAG [ARGUMENT].

    calls               every kind of call, messages of every size, metadata
    errors              every status code
    unrouted            a call of a service that no server has
    deadlines           calls that take longer than they may
    cancels             calls given up, before and in the middle of their answers
    many                100 bidirectional streams at once
    steady SECONDS      unary calls one after the other, for so long, over a restart of the server
    stream COUNT        so many messages of 64 KiB on one bidirectional stream

Every call carries x-tag: TAG-NAME. Prints a JSON object.
"""

import concurrent.futures
import hashlib
import json
import os
import sys
import time

# Names are in /etc/hosts; its own resolver asks a name server, for seconds, that is not there.
os.environ["GRPC_DNS_RESOLVER"] = "native"

import grpc  # noqa: E402

mode, host, port, tag = sys.argv[1:5]
channel = grpc.insecure_channel(
    f"{host}:{port}",
    options=[
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.enable_http_proxy", 0),
    ],
)
unary = channel.unary_unary("/test.Echo/Unary")
client_stream = channel.stream_unary("/test.Echo/ClientStream")
server_stream = channel.unary_stream("/test.Echo/ServerStream")
bidi = channel.stream_stream("/test.Echo/Bidi")


def meta(name, *more):
    return [("x-tag", f"{tag}-{name}"), *more]


def fields(metadata):
    """Metadata that the server chose, in an order of its own."""
    pairs = [(key, value.hex() if isinstance(value, bytes) else value) for key, value in metadata or ()]
    return sorted(pair for pair in pairs if pair[0].startswith("x-"))


def ending(call):
    trailing = fields(call.trailing_metadata())
    return {"code": call.code().name, "details": call.details(), "trailing": trailing}


def parts(count, size):
    return [i.to_bytes(4, "big") * (size // 4) for i in range(count)]


def digest(messages):
    return f"{len(messages)} {hashlib.sha256(b''.join(messages)).hexdigest()}"


def calls():
    result = {}
    metadata = meta("unary", ("x-text", "a b"), ("x-twice", "1"), ("x-twice", "2"), ("x-data-bin", b"\x00\x01\xff"))
    for size in (0, 1, 16383, 16384, 1 << 20, 16 << 20):
        message = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
        answer, call = unary.with_call(message, metadata=metadata, timeout=30)
        lead = fields(call.initial_metadata())
        result[f"unary {size}"] = {"same": answer == message, "lead": lead, **ending(call)}
    for count, size in ((0, 0), (1, 0), (1000, 100), (64, 65536)):
        answer, call = client_stream.with_call(iter(parts(count, size)), metadata=meta("client"), timeout=30)
        same = answer.decode() == digest(parts(count, size))
        result[f"client {count} {size}"] = {"same": same, **ending(call)}
    for count, size in ((0, 0), (1000, 100), (64, 65536)):
        order = json.dumps({"count": count, "size": size}).encode()
        call = server_stream(order, metadata=meta("server"), timeout=30)
        same = list(call) == [f"{i}:".encode() + b"s" * size for i in range(count)]
        result[f"server {count} {size}"] = {"same": same, **ending(call)}
    for count, size in ((0, 0), (1000, 100)):
        call = bidi(iter(parts(count, size)), metadata=meta("bidi"), timeout=30)
        result[f"bidi {count} {size}"] = {"same": list(call) == parts(count, size), **ending(call)}
    # Each message only after the response to the one before.
    turns, got = iter_turns(50)
    result["turns"] = {"same": got == turns}
    return result


def iter_turns(count):
    got = []

    def speak():
        for i in range(count):
            while len(got) < i:
                time.sleep(0.0002)
            yield f"turn {i}".encode()

    for message in bidi(speak(), metadata=meta("turns"), timeout=30):
        got.append(message)
    return [f"turn {i}".encode() for i in range(count)], got


def failed(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except grpc.RpcError as error:
        return ending(error)
    return None


def errors():
    names = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    result = {name: failed(unary, b"x", metadata=meta("error", ("x-fail", name)), timeout=10) for name in names}
    unknown = channel.unary_unary("/test.Echo/None")
    result["unknown method"] = failed(unknown, b"x", metadata=meta("unknown"), timeout=10)
    return result


def unrouted():
    other = channel.unary_unary("/test.Other/Unary")
    return failed(other, b"x", metadata=meta("unrouted"), timeout=10)


def deadlines():
    begin = time.monotonic()
    slow = failed(unary, b"x", metadata=meta("late", ("x-wait", "30")), timeout=0.5)
    took = time.monotonic() - begin
    order = json.dumps({"count": 1000, "size": 10, "pause": 0.05}).encode()
    got = 0
    try:
        for _ in server_stream(order, metadata=meta("late-stream"), timeout=0.5):
            got += 1
        code = "OK"
    except grpc.RpcError as error:
        code = error.code().name
    in_time = unary.with_call(b"x", metadata=meta("in-time", ("x-wait", "0.1")), timeout=10)[1]
    return {"late": slow["code"], "seconds": took, "stream": code, "got": 0 < got < 100, "in_time": ending(in_time)}


def cancels():
    waiting = unary.future(b"x", metadata=meta("waiting", ("x-wait", "30")))
    time.sleep(0.3)
    waiting.cancel()
    order = json.dumps({"count": 100000, "size": 10, "pause": 0.01}).encode()
    half = server_stream(order, metadata=meta("half"))
    got = [next(half) for _ in range(10)]
    half.cancel()

    def endless():
        while True:
            yield b"more"
            time.sleep(0.01)

    both = bidi(endless(), metadata=meta("both"))
    got += [next(both) for _ in range(10)]
    both.cancel()
    after = unary.with_call(b"x", metadata=meta("after"), timeout=10)[1]
    return {"waiting": waiting.code().name, "half": half.code().name, "got": len(got), "after": after.code().name}


def many():
    def one(number):
        messages = [f"{number}-{i}".encode() for i in range(50)]
        return list(bidi(iter(messages), metadata=meta("many"), timeout=30)) == messages

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        return {"same": sum(pool.map(one, range(100)))}


def steady():
    until, codes, gaps, last = time.monotonic() + float(sys.argv[5]), {}, [], time.monotonic()
    count = 0
    while time.monotonic() < until:
        try:
            unary(b"x", metadata=meta(f"steady-{count}"), timeout=2)
            code, last_ok = "OK", time.monotonic()
            gaps.append(last_ok - last)
            last = last_ok
        except grpc.RpcError as error:
            code = error.code().name
        codes[code] = codes.get(code, 0) + 1
        ended = code
        count += 1
        time.sleep(0.01)
    return {"codes": codes, "gap": max(gaps), "ended": ended}


def stream():
    count, message = int(sys.argv[5]), b"m" * 65536
    begin = time.monotonic()
    call = bidi((message for _ in range(count)), metadata=meta("stream"), timeout=60)
    got, longest, last = 0, 0.0, begin
    for answer in call:
        now = time.monotonic()
        got, longest, last = got + (answer == b"65536"), max(longest, now - last), now
    return {"got": got, "seconds": time.monotonic() - begin, "longest": longest, **ending(call)}


modes = [calls, errors, unrouted, deadlines, cancels, many, steady, stream]
print(json.dumps({function.__name__: function for function in modes}[mode]()))
