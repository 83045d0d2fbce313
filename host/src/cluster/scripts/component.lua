-- Puts a component there; it goes again if no entry refers to it in time.
-- KEYS: component, stored. ARGV: digest, bytes, seconds.
redis.call('SADD', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
elseif redis.call('TTL', KEYS[1]) >= 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return 1
