-- Deletes the oldest finished jobs with audio while all of it, or that of their caller, exceeds its limit. At most 1000
-- are read. Returns how many were deleted.
local max_size, max_own_size = tonumber(ARGV[1]), tonumber(ARGV[2])

local deleted = 0
for _, id in ipairs(redis.call('ZRANGE', final, 0, 999)) do
    local caller, size = unpack(redis.call('HMGET', job_prefix .. id, 'caller', 'size'))
    if tonumber(size or 0) > 0 then
        local all = tonumber(redis.call('HGET', counts, 'size') or 0)
        local own = tonumber(redis.call('HGET', size_by, caller or '') or 0)
        if all > max_size or own > max_own_size then
            delete(id)
            deleted = deleted + 1
        end
    end
end
return deleted
