-- Gives a store back what it has lost, or fills a new one: entries that are newer than what is there.
-- KEYS: meta, entries, log, gone, refs, audit. ARGV: epoch, check, number and head of the last change, channel, `begin`,
-- `end` or `middle`, now in ms, count of entries; entries and lines as in write.lua.
-- Answers with 0, or -2 if another cluster is there.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if ARGV[6] == 'begin' and not epoch then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'check', ARGV[2], 'seq', '0', 'head', '')
elseif epoch ~= ARGV[1] then
  return -2
end
local function version(content)
  return tonumber(string.match(content, '^{"v":(%d+)') or '0')
end
local at = 9
for _ = 1, tonumber(ARGV[8]) do
  local name, gone, component, content = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local there = redis.call('HGET', KEYS[2], name)
  if not there or version(there) < version(content) then
    redis.call('HSET', KEYS[2], name, content)
    if gone == '1' then
      redis.call('ZADD', KEYS[4], ARGV[7], name)
      redis.call('HDEL', KEYS[5], name)
    elseif component ~= '' then
      redis.call('HSET', KEYS[5], name, component)
    end
  end
  at = at + 4
end
while at < #ARGV do
  redis.call('ZREMRANGEBYSCORE', KEYS[6], ARGV[at], ARGV[at])
  redis.call('ZADD', KEYS[6], ARGV[at], ARGV[at + 1])
  at = at + 2
end
if ARGV[6] == 'end' then
  -- One that others have not seen makes all of them read everything.
  local last = tonumber(redis.call('HGET', KEYS[1], 'seq'))
  local number = string.format('%.0f', math.max(last + 1, tonumber(ARGV[3])))
  redis.call('HSET', KEYS[1], 'seq', number, 'head', ARGV[4])
  redis.call('DEL', KEYS[3])
  redis.call('ZADD', KEYS[3], number, number .. ' ' .. ARGV[4])
  redis.call('PUBLISH', ARGV[5], number)
end
return 0
