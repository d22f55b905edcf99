// Node's own HTTP server, which closes connections at random: closing.js PORT LOG SHARE.
// Of SHARE percent of the requests, a third each: the response says Connection: close; the
// connection is destroyed after the response was written, without having said so; the connection is
// destroyed instead of a response. A line for each request whose body arrived whole, and what
// became of it.
'use strict';
const fs = require('fs');
const http = require('http');

const [port, path, share] = process.argv.slice(2);
const log = fs.openSync(path, 'a');
let state = 1;
// The same numbers in every run.
const random = () => (state = (state * 48271) % 2147483647) / 2147483647;

const server = http.createServer((request, response) => {
  request.on('error', () => {});
  request.resume();
  request.on('end', () => {
    const close = random() * 100 < Number(share);
    const way = close ? Math.floor(random() * 3) : 3;
    const line = { method: request.method, target: request.url, way: ['said', 'after', 'instead', 'kept'][way] };
    fs.writeSync(log, JSON.stringify(line) + '\n');
    if (way === 2) {
      request.socket.destroy();
      return;
    }
    if (way === 0) response.setHeader('Connection', 'close');
    response.end('ok\n', () => {
      if (way === 1) request.socket.destroy();
    });
  });
});
server.keepAliveTimeout = 300;
server.listen(Number(port), '0.0.0.0');
