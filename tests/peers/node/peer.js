// A server and a client on Node's http; tests/peers/programs.py says what they must do.
'use strict';

const crypto = require('crypto');
const http = require('http');
const { Readable } = require('stream');

const PERIOD = 251; // a prime, so that no block of the body looks like its neighbour
const BLOCK = Buffer.from(Array.from({ length: PERIOD * 256 }, (_, i) => i % PERIOD));

function* blocks(size) {
  for (let left = size; left > 0; left -= BLOCK.length) yield BLOCK.subarray(0, left);
}

const body = (size) => Readable.from(blocks(size), { objectMode: false });
const pair = (address, port) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);
const local = (socket) => pair(socket.localAddress, socket.localPort);
const remote = (socket) => pair(socket.remoteAddress, socket.remotePort);

function json(response, content) {
  const text = JSON.stringify(content) + '\n';
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': text.length });
  response.end(text);
}

function bytes(response, size, framed) {
  const headers = { 'Content-Type': 'application/octet-stream' };
  if (framed) headers['Content-Length'] = size;
  response.writeHead(200, headers);
  body(size).pipe(response);
}

function digest(request, response) {
  const hash = crypto.createHash('sha256');
  let size = 0;
  request.on('data', (block) => { hash.update(block); size += block.length; });
  request.on('end', () => json(response, { bytes: size, sha256: hash.digest('hex') }));
}

function answer(request, response) {
  const sized = /^\/(bytes|chunked)\/([0-9]+)$/.exec(request.url);
  if (sized) return bytes(response, Number(sized[2]), sized[1] === 'bytes');
  if (request.url === '/digest') return digest(request, response);
  if (request.url === '/whoami') {
    return json(response, { remote: remote(request.socket), local: local(request.socket) });
  }
  response.writeHead(404, { 'Content-Length': 0 });
  return response.end();
}

function ask(agent, url, upload, seen, hash) {
  return new Promise((resolve, reject) => {
    const headers = upload ? { 'Content-Length': upload } : {};
    const request = http.request(url, { agent, headers, method: upload ? 'POST' : 'GET' });
    request.on('error', reject);
    request.on('socket', (socket) => {
      if (!request.reusedSocket) seen.connections += 1;
      const note = () => { seen.local.push(local(socket)); seen.remote.push(remote(socket)); };
      if (socket.connecting) socket.once('connect', note); else note();
    });
    request.on('response', (response) => {
      seen.statuses.push(response.statusCode);
      response.on('data', (block) => { hash.update(block); seen.bytes += block.length; });
      response.on('end', resolve);
      response.on('aborted', () => reject(new Error('the response was cut short')));
    });
    if (upload) body(upload).pipe(request); else request.end();
  });
}

async function call(count, upload, urls) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const hash = crypto.createHash('sha256');
  const seen = { statuses: [], local: [], remote: [], connections: 0, bytes: 0 };
  for (let i = 0; i < count; i += 1) {
    for (const url of urls) await ask(agent, url, upload, seen, hash);
  }
  agent.destroy();
  console.log(JSON.stringify({ ...seen, sha256: hash.digest('hex') }));
}

const [verb, first, second, ...urls] = process.argv.slice(2);
if (verb === 'serve') {
  http.createServer(answer).listen({ port: Number(first), backlog: 1024 });
} else {
  call(Number(first), Number(second), urls).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
