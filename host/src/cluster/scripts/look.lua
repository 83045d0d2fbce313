-- What has changed since a change that a node knows of.
-- KEYS: meta, log. ARGV: number and head of that change, how many changes are told one by one.
-- Answers with epoch, check, number, head and `same`, `all`, or `some` and the changes; with nothing if there is no cluster.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'check', 'seq', 'head')
if not meta[1] then
  return {}
end
local answer = { meta[1], meta[2] or '', meta[3] or '0', meta[4] or '' }
if meta[3] == ARGV[1] and meta[4] == ARGV[2] then
  answer[5] = 'same'
  return answer
end
answer[5] = 'all'
if tonumber(ARGV[1]) > tonumber(answer[3]) then
  return answer
end
local since = redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[1], '+inf', 'LIMIT', 0, ARGV[3] + 1)
local known = ARGV[1] .. ' ' .. ARGV[2]
if #since < 2 or #since > tonumber(ARGV[3]) or string.match(since[1], '^[^\n]*') ~= known then
  return answer
end
answer[5] = 'some'
for index = 2, #since do
  answer[index + 4] = since[index]
end
return answer
