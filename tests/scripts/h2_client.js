// Node's own HTTP/2 client: h2_client.js HOST PORT TAG. Prints a JSON object: what came of 200
// requests at once with bodies of different sizes and trailers, of one that is cancelled, of
// CONNECT, of a ping; all on one session.
'use strict';
const crypto = require('crypto');
const http2 = require('http2');

const [host, port, tag] = process.argv.slice(2);
const session = http2.connect(`http://${host}:${port}`);
session.on('error', (error) => {
  console.error(error);
  process.exit(1);
});

function exchange(headers, body, trailers) {
  return new Promise((resolve) => {
    const stream = session.request(headers, { endStream: body === undefined, waitForTrailers: !!trailers });
    const answer = { body: '' };
    stream.setEncoding('utf8');
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.on('response', (fields) => {
      answer.status = fields[':status'];
      answer.cookies = fields['set-cookie'];
    });
    stream.on('trailers', (fields) => (answer.trailers = { ...fields }));
    stream.on('data', (text) => (answer.body += text));
    stream.on('error', () => {});
    stream.on('close', () => resolve({ ...answer, code: stream.rstCode }));
    if (body !== undefined) stream.end(body);
  });
}

async function requests() {
  const all = Array.from({ length: 200 }, (_, i) => {
    const body = i % 4 === 0 ? undefined : Buffer.alloc(i * 500, String(i));
    const headers = { ':method': body ? 'POST' : 'GET', ':path': `/many?id=${tag}-${i}`, cookie: ['x=1', 'y=2'] };
    return exchange(headers, body, body && { 'x-sum': crypto.createHash('md5').update(body).digest('hex') });
  });
  return Promise.all(all);
}

function cancelled() {
  return new Promise((resolve) => {
    const abort = new AbortController();
    const headers = { ':method': 'POST', ':path': `/cancelled?id=${tag}-cancelled` };
    const stream = session.request(headers, { signal: abort.signal });
    stream.on('error', () => {});
    stream.on('close', () => resolve(stream.rstCode));
    stream.write('some');
    setTimeout(() => abort.abort(), 100);
  });
}

// Bytes back and forth in a tunnel. The extended kind (RFC 8441) is for servers that said that
// they allow it.
async function tunnel(protocol) {
  if (protocol && !session.remoteSettings.enableConnectProtocol) return 'not enabled';
  const headers = { ':method': 'CONNECT', ':authority': `${host}:${port}` };
  if (protocol) Object.assign(headers, { ':protocol': protocol, ':scheme': 'http', ':path': `/tunnel?id=${tag}-tunnel` });
  const body = 'tunnel '.repeat(20000);
  const answer = await exchange(headers, body);
  return { status: answer.status, same: answer.body === body, code: answer.code };
}

async function main() {
  await new Promise((resolve) => session.once('remoteSettings', resolve));
  const ping = await new Promise((resolve, reject) => session.ping((error, took) => (error ? reject(error) : resolve(took))));
  const first = await exchange({ ':path': `/first?id=${tag}-first` });
  const result = { ping: ping < 5000, first, requests: await requests(), cancelled: await cancelled() };
  result.extended = await tunnel('websocket');
  result.connect = await tunnel();
  result.after = (await exchange({ ':path': `/after?id=${tag}-after` })).status;
  console.log(JSON.stringify(result));
  session.close();
}

setTimeout(() => process.exit(2), 30000).unref();
main();
