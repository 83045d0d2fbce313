-- Every node. KEYS: nodes, lease, meta. Answers with now in ms, who leads, the number of the last change, then nodes.
local time = redis.call('TIME')
local answer = {
  time[1] .. string.format('%03d', math.floor(time[2] / 1000)),
  redis.call('GET', KEYS[2]) or '',
  redis.call('HGET', KEYS[3], 'seq') or '0',
}
for _, part in ipairs(redis.call('HGETALL', KEYS[1])) do
  answer[#answer + 1] = part
end
return answer
