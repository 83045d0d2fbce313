-- Takes the lead if nobody has it, with a token that is greater than any before. KEYS: lease, fence.
-- ARGV: node, lease in ms. Answers with the token, or 0.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  -- A store that has lost its tokens must not give one out for the second time.
  redis.call('SET', KEYS[2], redis.call('TIME')[1])
end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
return token
