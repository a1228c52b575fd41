-- Deletes at most 1000 jobs that ended before a time, with their audio, and returns how many. Jobs whose webhooks are
-- still to be delivered stay.
local counts, final, failed, webhooks = KEYS[3], KEYS[6], KEYS[7], KEYS[8]
local job_prefix, audio_prefix, before = ARGV[1], ARGV[2], ARGV[3]

local deleted = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', final, '-inf', '(' .. before, 'LIMIT', 0, 1000)) do
    if not redis.call('ZSCORE', webhooks, id) then
        local job = job_prefix .. id
        redis.call('HINCRBY', counts, redis.call('HGET', job, 'state'), -1)
        local idempotency_key = redis.call('HGET', job, 'key')
        if idempotency_key ~= '' then redis.call('DEL', idempotency_key) end
        redis.call('DEL', job, audio_prefix .. id)
        redis.call('ZREM', final, id)
        redis.call('ZREM', failed, id)
        deleted = deleted + 1
    end
end
return deleted
