-- Every request has the same head. It is put together here, as wrk.format orders its fields anew in
-- every thread; and `request` is not defined, so that wrk calls no Lua while it measures.

require("benchmarks.wrk.report")

connection = ""  -- a further header line

function init(args)
  local head = "GET /jobs/33100000000000000001 HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n"
    .. "User-Agent: turtletweets/1.0\r\nAccept: application/json\r\n"
    .. "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" .. connection .. "\r\n"
  wrk.format = function() return head end
end
