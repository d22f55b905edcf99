"""A gRPC server whose messages are bytes: grpc_server.py PORT LOG [stall].

The service test.Echo has all four kinds of call. LOG gets a JSON line for each call when it is
over: the messages that arrived, the metadata, the deadline, how it ended. With "stall" it never
reads the messages of a bidirectional stream, and never answers them.
"""

import concurrent.futures
import hashlib
import json
import sys
import threading
import time

import grpc

LOG = open(sys.argv[2], "a", buffering=1)
STALL = sys.argv[3:] == ["stall"]
LOCK = threading.Lock()


class Call:
    """What is told of one call."""

    def __init__(self, kind, context):
        self.context, self.count, self.bytes, self.hash = context, 0, 0, hashlib.sha256()
        self.begin = time.monotonic()
        fields = [(key, value.hex() if key.endswith("-bin") else value) for key, value in context.invocation_metadata()]
        self.fields = dict(fields)
        self.line = {"kind": kind, "metadata": sorted(pair for pair in fields if pair[0].startswith("x-"))}
        self.line["tag"] = self.fields.get("x-tag", "")
        self.line["deadline"] = context.time_remaining()
        context.add_callback(self.over)
        context.send_initial_metadata([("x-lead", "first"), ("x-lead-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-trail", "last"), ("x-trail-bin", b"\x01\xfe")])

    def take(self, message):
        self.hash.update(message)
        self.count += 1
        self.bytes += len(message)
        return message

    def over(self):
        # Called once, when the call ended: finished, cancelled, or too late.
        code = self.context.code()
        more = {
            "messages": self.count,
            "bytes": self.bytes,
            "sha256": self.hash.hexdigest(),
            "code": getattr(code, "name", None),
            "finished": self.line.get("finished", False),
            "seconds": time.monotonic() - self.begin,
        }
        with LOCK:
            LOG.write(json.dumps({**self.line, **more}) + "\n")

    def finish(self):
        # The messages of a call that was given up end without an error as well, sometimes before
        # this library says that the call is over.
        self.line["finished"] = self.context.is_active()


def unary(request, context):
    call = Call("unary", context)
    call.take(request)
    if wait := call.fields.get("x-wait"):
        # Until the call is over, or longer than anybody waits.
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(float(wait))
    if code := call.fields.get("x-fail"):
        context.abort(grpc.StatusCode[code], f"on purpose: {code} \u2713 100%\n")
    call.finish()
    return request


def client_stream(requests, context):
    call = Call("client_stream", context)
    for message in requests:
        call.take(message)
    call.finish()
    return f"{call.count} {call.hash.hexdigest()}".encode()


def server_stream(request, context):
    call = Call("server_stream", context)
    call.take(request)
    order = json.loads(request)
    for i in range(order["count"]):
        if not context.is_active():
            return
        yield f"{i}:".encode() + b"s" * order["size"]
        time.sleep(order.get("pause", 0))
    call.finish()


def bidi(requests, context):
    call = Call("bidi", context)
    if STALL:
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(120)
        return
    for message in requests:
        # Large messages are acknowledged, so that one direction at a time is measured.
        call.take(message)
        yield message if len(message) < 4096 else str(len(message)).encode()
    call.finish()


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
}
server = grpc.server(
    concurrent.futures.ThreadPoolExecutor(256),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)],
)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", handlers)])
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
server.wait_for_termination()
