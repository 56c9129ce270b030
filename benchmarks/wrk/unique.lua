-- No head comes twice, within a run or in any later one: path and traceparent hold the run's seed, the
-- thread's id and a count. (wrk seeds math.random alike every time, so chance would repeat itself.)
-- The head is as long as that of equal.lua, and has the same fields.

require("benchmarks.wrk.report")

local format = string.format
local count, before, between, after = 0, "", "", ""

function init(args)
  local seed = args[1]  -- ten digits
  before = format("GET /jobs/%s%02d", seed, id)
  between = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nUser-Agent: turtletweets/1.0\r\n"
    .. "Accept: application/json\r\ntraceparent: 00-" .. format("%s%02d0000", seed, id)
  after = "-01\r\n\r\n"
end

function request()
  count = count + 1
  return before .. format("%08d", count) .. between .. format("%016x-%016x", count, count) .. after
end
