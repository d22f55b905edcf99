"""A WebSocket inside an HTTP/2 stream (RFC 8441): ws_h2_client.py HOST PORT TAG.

Beside it on the connection are plain requests and another WebSocket. Prints a JSON object.
"""

import hashlib
import json
import sys

import wsproto.frame_protocol as frames
from h2.settings import SettingCodes
from h2peer import Peer

host, port, tag = sys.argv[1:]
peer = Peer(host, port)
LARGE = b"".join(hashlib.sha512(i.to_bytes(4, "big")).digest() for i in range(16384))


class WebSocket:
    def __init__(self, path):
        fields = [("sec-websocket-version", "13"), ("origin", "http://example")]
        self.stream = peer.open("CONNECT", path, fields, end=False, protocol="websocket")
        self.frames = frames.FrameProtocol(client=True, extensions=[])
        self.got = []  # (opcode, payload), parts of a message joined
        self.part = b""
        peer.flush()
        peer.receive(lambda: self.state.status is not None or self.state.over)

    @property
    def state(self):
        return peer.streams[self.stream]

    def send(self, payload):
        peer.send(self.stream, self.frames.send_data(payload, fin=True))

    def control(self, data, end=False):
        peer.send(self.stream, data, end)

    def receive(self):
        """The next message or control frame."""

        def there():
            self.frames.receive_bytes(bytes(self.state.body))
            self.state.body.clear()
            for frame in self.frames.received_frames():
                payload = frame.payload
                if frame.opcode <= frames.Opcode.BINARY:
                    payload = payload.encode() if isinstance(payload, str) else bytes(payload)
                    self.part += payload
                    if not frame.message_finished:
                        continue
                    payload, self.part = self.part, b""
                self.got.append((frame.opcode.name, payload))
            return self.got or self.state.over

        peer.receive(there)
        return self.got.pop(0) if self.got else ("OVER", self.state.reset)


result = {}
peer.get(f"/plain?id={tag}-first")
result["enabled"] = peer.h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL)
one, two = WebSocket(f"/ws?id={tag}-one"), WebSocket(f"/ws?id={tag}-two")
result["status"] = [one.state.status, two.state.status]
if result["status"] == [200, 200]:
    one.send("hello")
    two.send(LARGE)
    one.control(one.frames.ping(b"beat"))
    pair = [one.receive(), one.receive()]
    # Which of the two comes first is the server's affair.
    result["one"] = sorted([name, bytes(data).decode()] for name, data in pair)
    name, payload = two.receive()
    result["two"] = [name, payload == LARGE]
    result["plain"] = peer.get(f"/plain?id={tag}-between").status
    # The server closes one, the client the other.
    one.send("close")
    name, payload = one.receive()
    result["server_closes"] = [name, int(payload[0]), payload[1]]
    peer.reset(one.stream, "CANCEL")
    two.control(two.frames.close(1001, "leaving"), end=True)
    name, payload = two.receive()
    result["client_closes"] = [name, int(payload[0])]
    result["after"] = peer.get(f"/plain?id={tag}-after").status
print(json.dumps(result))
