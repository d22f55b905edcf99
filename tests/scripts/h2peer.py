"""One HTTP/2 connection to a server that is known to speak it (no TLS, no upgrade), driven by hand.

For clients that do what libraries would not: many frames in one write, streams that are not read.
Not for the command line: the scripts beside it import it.
"""

import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes


class Stream:
    """What came on one stream."""

    def __init__(self):
        self.hints = []  # statuses of 1xx responses
        self.status = None
        self.headers = []  # in order
        self.body = bytearray()
        self.trailers = {}
        self.reset = None  # an error code's name
        self.ended = False  # by END_STREAM

    @property
    def over(self):
        return self.ended or self.reset is not None


class Peer:
    def __init__(self, host, port, timeout=20):
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.authority = f"{host}:{port}"
        self.timeout = timeout
        self.streams = {}
        self.unread = set()  # streams whose window is not opened again
        self.goaway = None
        self.closed = False
        self.h2.initiate_connection()

    def flush(self):
        """Writes all that was queued so far, at once."""
        self.socket.sendall(self.h2.data_to_send())

    def open(self, method, path, fields=(), end=True, protocol=None):
        """Queues a request's head; its stream's number."""
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", self.authority)]
        if protocol:
            head.append((":protocol", protocol))
        if method == "CONNECT" and not protocol:
            head = [(":method", method), (":authority", self.authority)]
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = Stream()
        self.h2.send_headers(number, head + list(fields), end_stream=end)
        return number

    def send(self, number, data, end=False):
        """Sends a body's part, waiting for windows; False when the stream was over before."""
        view = memoryview(data)
        while view:
            if self.streams[number].over or self.closed:
                return False
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.flush()
                self.receive(lambda: self.streams[number].over or self.h2.local_flow_control_window(number) > 0)
                continue
            self.h2.send_data(number, bytes(view[:room]), end_stream=end and len(view) <= room)
            view = view[room:]
            self.flush()
        return True

    def reset(self, number, code):
        self.h2.reset_stream(number, ErrorCodes[code])

    def get(self, path, **more):
        """A whole exchange."""
        number = self.open("GET", path, **more)
        return self.wait(number)

    def wait(self, *numbers):
        """Flushes, and reads until these streams are over; the (first) stream."""
        self.flush()
        self.receive(lambda: all(self.streams[number].over for number in numbers))
        return self.streams[numbers[0]]

    def receive(self, until, timeout=None):
        """Reads until the condition holds; raises TimeoutError, or ConnectionError at the end."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the condition does not hold in time")
            if self.closed:
                raise ConnectionError(f"the connection ended: {self.goaway}")
            self.socket.settimeout(left)
            data = self.socket.recv(65536)
            self.closed = not data
            for event in self.h2.receive_data(data) if data else ():
                self.event(event)
            self.flush()

    def event(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = {"code": name(event.error_code), "last": event.last_stream_id}
        elif stream is None:
            return
        elif isinstance(event, h2.events.InformationalResponseReceived):
            stream.hints.append(int(dict(event.headers)[":status"]))
        elif isinstance(event, h2.events.ResponseReceived):
            stream.status = int(dict(event.headers)[":status"])
            stream.headers = [pair for pair in event.headers if pair[0] != ":status"]
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            if event.stream_id not in self.unread:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                # The connection goes on; only this stream's window stays as it is.
                self.h2.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = name(event.error_code)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True


def name(code):
    """An error code's name."""
    return code.name if isinstance(code, ErrorCodes) else str(code)
