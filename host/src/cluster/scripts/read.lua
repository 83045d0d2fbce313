-- Entries by name. KEYS: entries. ARGV: largest entry, names. One that is too large is answered as `large`.
local answer = {}
for index = 2, #ARGV do
  if redis.call('HSTRLEN', KEYS[1], ARGV[index]) > tonumber(ARGV[1]) then
    answer[index - 1] = 'large'
  else
    answer[index - 1] = redis.call('HGET', KEYS[1], ARGV[index]) or ''
  end
end
return answer
