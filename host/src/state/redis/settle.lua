-- Settles a batch of calls, once: a batch that was applied before is left alone.
-- KEYS: 1 how far the node's session has come; then the counters that the steps name by their place here.
-- ARGV: first and last number of the batch, and its steps as JSON.
-- Answers with how far the session has come.
local from, to = tonumber(ARGV[1]), ARGV[2]
local stored = redis.call('GET', KEYS[1])
if stored and tonumber(stored) >= from then return tonumber(stored) end
local time = redis.call('TIME')
local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local ms = math.floor(us / 1000)
local DAY = 86400000

local function whole(number) return string.format('%.0f', number) end

-- Takes back what a call had reserved; nothing if this server has lost it.
local function unreserve(key, permit)
  local reserved = redis.call('HGET', key, 'p' .. permit)
  if not reserved then return end
  redis.call('HDEL', key, 'p' .. permit)
  local number, cost = string.match(reserved, '^(%d+):(%d+)$')
  if redis.call('HEXISTS', key, 's' .. number) == 1 then redis.call('HINCRBY', key, 's' .. number, '-' .. cost) end
end

local function commit(key, number, ends, actual)
  local newest, older = unpack(redis.call('HMGET', key, 'w', 'v'))
  if ends >= 0 and ms >= ends + DAY then return end
  if older and number < tonumber(older) then return end
  if not newest or tonumber(newest) < number then
    if newest then
      if older then redis.call('HDEL', key, 'c' .. older, 's' .. older) end
      redis.call('HSET', key, 'v', newest)
    end
    redis.call('HSET', key, 'w', whole(number))
    if ends >= 0 then redis.call('PEXPIRE', key, ends - ms + DAY) end
  elseif not older and tonumber(newest) > number then
    redis.call('HSET', key, 'v', whole(number))
  end
  redis.call('HINCRBY', key, 'c' .. whole(number), whole(actual))
end

for _, step in ipairs(cjson.decode(ARGV[3])) do
  local kind, key = step[1], KEYS[step[2]]
  if kind == 'w' then
    if step[3] ~= '' then unreserve(key, step[3]) end
    if step[6] > 0 then commit(key, step[4], step[5], step[6]) end
  elseif kind == 'b' then
    local full = math.max(tonumber(redis.call('GET', key) or '0'), us) + step[3] * step[4] * 1000 / math.max(step[5], 1)
    if full <= us then
      redis.call('DEL', key)
    else
      redis.call('SET', key, whole(full), 'PX', math.max(1, math.ceil((full - us) / 1000)))
    end
  elseif kind == 'c' then
    redis.call('ZREM', key, step[3])
  else
    redis.call('SET', key, 1, 'PX', 600000)
  end
end
redis.call('SET', KEYS[1], to, 'PX', 40 * DAY)
return tonumber(to)
