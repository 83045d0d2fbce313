-- What the leader does, if its token is the newest; that is also what renews its lease.
-- KEYS: lease, fence, entries, gone, refs, stored, nodes, beats, then components that may be unused.
-- ARGV: node, token, lease in ms, now in ms, ms that removed entries are kept, ms that silent nodes are, seconds that services'
-- beats are, seconds that unused components are, digests of these components.
-- Answers with how much was done, or -1 if the token is not the newest.
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return -1
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
local now, done = tonumber(ARGV[4]), 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now - ARGV[5], 'LIMIT', 0, 1000)) do
  redis.call('HDEL', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
  done = done + 1
end
local nodes = redis.call('HGETALL', KEYS[7])
for index = 1, #nodes, 2 do
  local seen = tonumber(string.match(nodes[index + 1], '^%d+') or '0')
  if seen < now - ARGV[6] then
    redis.call('HDEL', KEYS[7], nodes[index])
    done = done + 1
  end
end
done = done + redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', math.floor(now / 1000) - ARGV[7])
local used = {}
for _, digest in ipairs(redis.call('HVALS', KEYS[5])) do
  used[digest] = true
end
for index = 9, #KEYS do
  local digest = ARGV[index]
  if not used[digest] then
    redis.call('EXPIRE', KEYS[index], ARGV[8])
    redis.call('SREM', KEYS[6], digest)
    done = done + 1
  end
end
return done
