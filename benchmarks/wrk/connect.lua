-- A new connection for each request.

require("benchmarks.wrk.equal")

connection = "Connection: close\r\n"
