// Node's own HTTP/2 server: h2_server.js PORT LOG. A JSON line for each request when its body is
// complete, or its stream closed before. CONNECT, plain and extended, gets an echo of
// the stream's bytes.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http2 = require('http2');

const [port, path] = process.argv.slice(2);
const log = fs.openSync(path, 'a');
const server = http2.createServer({ settings: { enableConnectProtocol: true, maxConcurrentStreams: 100 } });
server.on('session', (session) => session.on('error', () => {}));
server.on('stream', (stream, headers) => {
  const hash = crypto.createHash('sha256');
  let length = 0;
  const line = { method: headers[':method'], target: headers[':path'], authority: headers[':authority'] };
  const tell = (complete) => {
    const more = { protocol: headers[':protocol'], cookie: headers.cookie, trailers, code: stream.rstCode };
    fs.writeSync(log, JSON.stringify({ ...line, ...more, length, sha256: hash.digest('hex'), complete }) + '\n');
  };
  let trailers = {};
  let told = false;
  stream.on('error', () => {});
  stream.on('trailers', (fields) => (trailers = { ...fields }));
  stream.on('data', (data) => {
    hash.update(data);
    length += data.length;
    if (line.method === 'CONNECT') stream.write(data);
  });
  stream.on('end', () => {
    // A stream that the client reset ends as well.
    if (stream.aborted) return;
    told = true;
    tell(true);
    if (line.method === 'CONNECT') {
      stream.end();
    } else {
      stream.respond({ ':status': 200, 'content-type': 'text/plain', 'set-cookie': ['a=1', 'b=2'] }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-length': String(length) }));
      stream.end(`${line.method} ${length}\n`);
    }
  });
  stream.on('close', () => told || tell(false));
  if (line.method === 'CONNECT') stream.respond({ ':status': 200 });
});
server.listen(Number(port), '0.0.0.0', 1024);
