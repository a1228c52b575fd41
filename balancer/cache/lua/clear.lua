-- Deletes at most 500 entries, the least recently used first, and returns how many.
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix = ARGV[1]

local popped = redis.call('ZPOPMIN', used, 500)  -- cache keys and their scores by turns
for index = 1, #popped, 2 do
    local cache_key = popped[index]
    redis.call('DEL', prefix .. cache_key)
    redis.call('DECRBY', total, tonumber(redis.call('HGET', sizes, cache_key) or 0))
    redis.call('HDEL', sizes, cache_key)
end
return #popped / 2
