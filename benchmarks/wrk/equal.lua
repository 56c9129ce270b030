-- Every request has the same head: wrk builds it once and sends the same bytes again and again.

require("benchmarks.wrk.report")

wrk.path = "/jobs/33100000000000000001"
wrk.headers["User-Agent"] = "turtletweets/1.0"
wrk.headers["Accept"] = "application/json"
wrk.headers["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
