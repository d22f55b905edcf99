"""A server that speaks nothing but HTTP/2: h2_server.py PORT LOG [--streams N] [--last N].

--streams is its MAX_CONCURRENT_STREAMS; after --last requests on a connection it says GOAWAY, and
answers those only. LOG gets a JSON line for each request when it is over, however that came about,
and the number of its connection. The first segment of the path says what to do:

    /echo            what arrived, as JSON
    /bytes/N         N bytes
    /delay/S         an answer after S seconds
    /hang            no response
    /unread          no response, and the body is not read (the stream's window is not opened)
    /reset/CODE      RST_STREAM instead of an answer
    /cut/CODE        RST_STREAM in the middle of the answer's body
    /trailers        an answer with trailers
    /hints           103, then an answer
    /early           an answer at once, before the request's end
    /open            the beginning of an answer at once, and no end
"""

import argparse
import asyncio
import hashlib
import json
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("log")
parser.add_argument("--streams", type=int, default=1000)
parser.add_argument("--last", type=int, default=0)
options = parser.parse_args()
LOG = open(options.log, "a", buffering=1)


class Request:
    def __init__(self, headers):
        fields = [[name, value] for name, value in headers if not name.startswith(":")]
        pseudo = dict((name, value) for name, value in headers if name.startswith(":"))
        self.path = pseudo.get(":path", "")
        self.line = {
            "method": pseudo[":method"],
            "target": self.path,
            "authority": pseudo.get(":authority"),
            "headers": fields,
            "length": 0,
            "trailers": {},
            "complete": False,
            "reset": None,
        }
        self.hash = hashlib.sha256()
        self.begin = time.monotonic()
        self.pending = b""  # of the response's body, until there is a window for it
        self.trailers = None
        self.answered = False
        self.told = False


class Connection(asyncio.Protocol):
    count = 0

    def connection_made(self, transport):
        Connection.count += 1
        self.number, self.transport, self.requests = Connection.count, transport, {}
        self.total = 0
        self.goaway = None
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: options.streams})
        self.flush()

    def flush(self):
        if data := self.h2.data_to_send():
            self.transport.write(data)

    def data_received(self, data):
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            LOG.write(json.dumps({"target": "", "connection": self.number, "error": repr(error)}) + "\n")
            self.flush()
            self.transport.close()
            return
        # A client that cancels in the same write gets no response.
        self.gone = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
        for event in events:
            number = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.RequestReceived):
                self.request(number, event.headers)
            elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
                for number in list(self.requests):
                    self.pump(number)
            elif number in self.requests:
                self.on_stream(event, number, self.requests[number])
        self.flush()

    def request(self, number, headers):
        if self.goaway and number > self.goaway:
            return  # The client knows from GOAWAY, and sends it elsewhere.
        self.total += 1
        request = self.requests[number] = Request(headers)
        if self.total == options.last:
            self.goaway = number
            # By hand: the library would send no response after it.
            self.transport.write(self.h2.data_to_send() + GoAwayFrame(0, number).serialize())
        if request.path.startswith("/early") and number not in self.gone:
            self.answer(number, request, 413, b"early")
        if request.path.startswith("/open") and number not in self.gone:
            self.h2.send_headers(number, [(":status", "200")])
            self.h2.send_data(number, b"open")

    def on_stream(self, event, number, request):
        if isinstance(event, h2.events.DataReceived):
            request.hash.update(event.data)
            request.line["length"] += len(event.data)
            if not request.path.startswith("/unread"):
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.TrailersReceived):
            request.line["trailers"] = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            request.line["complete"] = True
            if number not in self.gone:
                self.act(number, request)
        elif isinstance(event, h2.events.StreamReset):
            code = event.error_code
            self.over(number, code.name if isinstance(code, ErrorCodes) else str(code))

    def act(self, number, request):
        kind, _, argument = request.path.split("?")[0][1:].partition("/")
        if kind == "bytes":
            self.answer(number, request, 200, b"x" * int(argument))
        elif kind == "delay":
            answer = (number, request, 200, b"late")
            asyncio.get_running_loop().call_later(float(argument), self.answer, *answer)
        elif kind == "reset":
            self.h2.reset_stream(number, ErrorCodes[argument])
            self.over(number, None)
        elif kind == "cut":
            self.h2.send_headers(number, [(":status", "200"), ("content-length", "100")])
            self.h2.send_data(number, b"cut")
            self.flush()
            # Later, so that the head is seen by itself.
            asyncio.get_running_loop().call_later(0.05, self.cut, number, ErrorCodes[argument])
        elif kind == "trailers":
            request.trailers = [("x-sum", "12"), ("x-empty", "")]
            self.answer(number, request, 200, b"with trailers")
        elif kind == "hints":
            self.h2.send_headers(number, [(":status", "103"), ("link", "</style.css>; rel=preload")])
            self.answer(number, request, 200, b"hinted")
        elif kind not in ("hang", "unread", "early", "open"):
            told = {**request.line, "sha256": request.hash.hexdigest()}
            self.answer(number, request, 200, json.dumps(told).encode())

    def cut(self, number, code):
        if number in self.requests:
            self.h2.reset_stream(number, code)
            self.over(number, None)
            self.flush()

    def answer(self, number, request, status, body):
        if number not in self.requests:
            return  # Reset by the client in the meantime.
        self.h2.send_headers(number, [(":status", str(status)), ("server", "h2"), ("x-many", "a"), ("x-many", "b")])
        request.pending, request.answered = b"" if request.line["method"] == "HEAD" else body, True
        self.pump(number)
        self.flush()

    def pump(self, number):
        """Sends of the answer what the windows take."""
        request = self.requests.get(number)
        if request is None or not request.answered:
            return
        while request.pending:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                return
            self.h2.send_data(number, request.pending[:room])
            request.pending = request.pending[room:]
        if request.trailers:
            self.h2.send_headers(number, request.trailers, end_stream=True)
        else:
            self.h2.end_stream(number)
        if request.line["complete"] or request.path.startswith("/early"):
            self.over(number, None)

    def over(self, number, code):
        request = self.requests.pop(number, None)
        if request:
            seconds = time.monotonic() - request.begin
            more = {"connection": self.number, "sha256": request.hash.hexdigest(), "seconds": seconds}
            LOG.write(json.dumps({**request.line, **more, "reset": code}) + "\n")
        if self.goaway and not self.requests:
            self.flush()
            self.transport.close()

    def connection_lost(self, error):
        self.goaway = None
        for number in list(self.requests):
            self.over(number, "connection")


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "0.0.0.0", options.port, backlog=128)
    await server.serve_forever()


asyncio.run(main())
