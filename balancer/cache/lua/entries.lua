-- Stands before every script of the audio cache: the keys, and the function that keeps every index of an entry in step.
local used, sizes, total, owners, owned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local prefix = ARGV[1]

-- Removes an entry from the store and from every index.
local function drop(key)
    local size = tonumber(redis.call('HGET', sizes, key) or 0)
    local owner = redis.call('HGET', owners, key)
    redis.call('DEL', prefix .. key)
    redis.call('DECRBY', total, size)
    redis.call('HDEL', sizes, key)
    redis.call('HDEL', owners, key)
    redis.call('ZREM', used, key)
    if owner then
        redis.call('ZREM', owned .. ':' .. owner, key)
        if tonumber(redis.call('ZINCRBY', owned, -size, owner)) <= 0 then
            redis.call('ZREM', owned, owner)
        end
    end
end
