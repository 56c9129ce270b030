-- A new connection for each request.

require("benchmarks.wrk.equal")

wrk.headers["Connection"] = "close"
