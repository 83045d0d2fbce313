-- A node is there: tells what it is, and what it has heard of services; is told what others have heard.
-- KEYS: nodes, beats. ARGV: node, what it is, since when it wants to know (s), then service and time (s).
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], time[1] .. string.format('%03d', math.floor(time[2] / 1000)) .. ' ' .. ARGV[2])
for index = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[2], 'GT', ARGV[index + 1], ARGV[index])
end
return redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[3], '+inf', 'WITHSCORES')
