-- One change, whole or not at all, upon the change that the writer has seen last.
-- KEYS: meta, entries, log, gone, refs, audit, then the components that must be there.
-- ARGV: epoch, number of that change, head of the new one, channel, now in ms, changes kept, lines kept, count of entries;
-- for each entry its name, `gone`, digest of a component or nothing, content; then lines of the audit log: number, content.
-- Answers with 0 and the number of the change; -1: others came before; -2: another cluster; -3: a component is missing.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if meta[1] ~= ARGV[1] then
  return { -2, 0 }
end
if meta[2] ~= ARGV[2] then
  return { -1, tonumber(meta[2]) }
end
for index = 7, #KEYS do
  if redis.call('EXISTS', KEYS[index]) == 0 then
    return { -3, 0 }
  end
end
for index = 7, #KEYS do
  redis.call('PERSIST', KEYS[index])
end
local seq = string.format('%.0f', tonumber(meta[2]) + 1)
redis.call('HSET', KEYS[1], 'seq', seq, 'head', ARGV[3])
local change, at = seq .. ' ' .. ARGV[3], 9
for _ = 1, tonumber(ARGV[8]) do
  local name, gone, component, content = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  redis.call('HSET', KEYS[2], name, content)
  if gone == '1' then
    redis.call('ZADD', KEYS[4], ARGV[5], name)
    redis.call('HDEL', KEYS[5], name)
  else
    redis.call('ZREM', KEYS[4], name)
    if component ~= '' then
      redis.call('HSET', KEYS[5], name, component)
    end
  end
  change = change .. '\n' .. name
  at = at + 4
end
while at < #ARGV do
  redis.call('ZADD', KEYS[6], ARGV[at], ARGV[at + 1])
  at = at + 2
end
redis.call('ZADD', KEYS[3], seq, change)
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[6])
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -1 - ARGV[7])
redis.call('PUBLISH', ARGV[4], seq)
return { 0, tonumber(seq) }
