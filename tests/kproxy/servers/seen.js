// An HTTP server that answers everything and writes one line for each request that it believes to have read:
// its method and its target. Usage: node seen.js PORT
'use strict';

const server = require('http').createServer((request, response) => {
  process.stdout.write(`${request.method} ${request.url}\n`);
  request.resume();
  request.on('end', () => response.end('ok'));
});
server.on('upgrade', (request, socket) => {
  process.stdout.write(`${request.method} ${request.url}\n`);
  socket.end('HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
});
server.listen(Number(process.argv[2]), '127.0.0.1');
