-- Deletes at most 500 entries, the least recently used first, and returns how many.
local used, sizes, total, owners, owned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local prefix = ARGV[1]

local popped = redis.call('ZPOPMIN', used, 500)  -- cache keys and their scores by turns
for index = 1, #popped, 2 do
    local cache_key = popped[index]
    local size = tonumber(redis.call('HGET', sizes, cache_key) or 0)
    local owner = redis.call('HGET', owners, cache_key)
    redis.call('DEL', prefix .. cache_key)
    redis.call('DECRBY', total, size)
    redis.call('HDEL', sizes, cache_key)
    redis.call('HDEL', owners, cache_key)
    if owner then
        redis.call('ZREM', owned .. ':' .. owner, cache_key)
        if tonumber(redis.call('ZINCRBY', owned, -size, owner)) <= 0 then
            redis.call('ZREM', owned, owner)
        end
    end
end
return #popped / 2
