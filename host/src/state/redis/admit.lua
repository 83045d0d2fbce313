-- Charges all counters of a call, or none of them. One clock for all nodes: that of this server.
-- KEYS: 1 whether the call was given up before it came here; then one for each charge.
-- ARGV: permit, lease in ms; then for each charge: how, limit, window in ms, burst, cost.
-- Answers 0, 0 and for each charge window, its end, remaining, reset in ms; or the number of the charge that refuses, and
-- when to try again in ms, -1 for never. -1 as an end is never, too.
local time = redis.call('TIME')
local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local ms = math.floor(us / 1000)
local permit, lease = ARGV[1], tonumber(ARGV[2])
local DAY = 86400000

local function whole(number) return string.format('%.0f', number) end

local function month_of(day)
  local z = day + 719468
  local era, of_era = math.floor(z / 146097), z % 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local march = math.floor((5 * of_year + 2) / 153)
  local month, more = march + 2, 0
  if march >= 10 then month, more = march - 10, 1 end
  return (year + era * 400 + more) * 12 + month
end

local function piece(how, window)
  if how == 'total' then return 0, -1 end
  if how == 'month' then
    local today = math.floor(ms / DAY)
    local number, day = month_of(today), today + 28
    while month_of(day) == number do day = day + 1 end
    while month_of(day - 1) ~= number do day = day - 1 end
    return number, day * DAY
  end
  local number = math.floor(ms / window)
  return number, (number + 1) * window
end

if redis.call('EXISTS', KEYS[1]) == 1 then return {-1, 0} end

local plan, running = {}, {}
for i = 1, #KEYS - 1 do
  local key, at = KEYS[i + 1], 2 + (i - 1) * 5
  local how, limit, window = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local burst, cost = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  if how == 'c' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', ms)
    local used = (running[key] or redis.call('ZCARD', key)) + 1
    if used > limit then return {i, 1000} end
    running[key] = used
    plan[i] = {0, -1, limit - used, 0}
  elseif how == 'b' then
    if cost > burst then return {i, window} end
    local rate = window * 1000 / math.max(limit, 1)
    local full = math.max(running[key] or tonumber(redis.call('GET', key) or '0'), us) + cost * rate
    local over = full - us - burst * rate
    if over > 0.5 then return {i, math.max(1, math.ceil(over / 1000))} end
    running[key] = full
    plan[i] = {0, -1, math.max(0, math.floor(burst - (full - us) / rate + 0.000001)), math.ceil((full - us) / 1000)}
  else
    local number, ends = piece(how, window)
    local known = redis.call('HMGET', key, 'c' .. number, 's' .. number, 'c' .. number - 1, 's' .. number - 1)
    local before = 0
    if how == 's' then
      local last = tonumber(known[3] or '0') + tonumber(known[4] or '0')
      before = math.floor(last * math.min(ends - ms, window) / window)
    end
    local used = running[key] or (tonumber(known[1] or '0') + tonumber(known[2] or '0'))
    if used + cost + before > limit or (cost == 0 and used + before >= limit) then
      return {i, ends < 0 and -1 or math.max(1, ends - ms)}
    end
    running[key] = used + cost
    plan[i] = {number, ends, limit - used - cost - before, ends < 0 and 0 or math.max(1, ends - ms)}
  end
end

local answer, reserved = {0, 0}, {}
for i = 1, #KEYS - 1 do
  local key, at = KEYS[i + 1], 2 + (i - 1) * 5
  local how, window, cost = ARGV[at + 1], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 5])
  local number, ends = plan[i][1], plan[i][2]
  if how == 'c' then
    -- A permit may hold a counter twice.
    redis.call('ZADD', key, ms + lease, permit .. ':' .. i)
    redis.call('PEXPIRE', key, lease * 2)
  elseif how == 'b' then
    redis.call('SET', key, whole(running[key]), 'PX', math.max(1, math.ceil((running[key] - us) / 1000)))
  else
    -- Two windows are kept: the newest, and the one before it.
    local newest = redis.call('HGET', key, 'w')
    if not newest or tonumber(newest) < number then
      if newest then
        local older = redis.call('HGET', key, 'v')
        if older then redis.call('HDEL', key, 'c' .. older, 's' .. older) end
        redis.call('HSET', key, 'v', newest)
      end
      redis.call('HSET', key, 'w', whole(number))
      if ends >= 0 then redis.call('PEXPIRE', key, ends - ms + (how == 's' and window or 0) + DAY) end
    end
    if cost > 0 then
      reserved[key] = (reserved[key] or 0) + cost
      redis.call('HINCRBY', key, 's' .. number, ARGV[at + 5])
      redis.call('HSET', key, 'p' .. permit, whole(number) .. ':' .. whole(reserved[key]))
    end
  end
  for j = 1, 4 do answer[#answer + 1] = plan[i][j] end
end
return answer
