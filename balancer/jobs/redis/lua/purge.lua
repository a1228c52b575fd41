-- Deletes at most 1000 jobs that ended before a time, with their audio, and returns how many. Jobs whose webhooks are
-- still to be delivered stay.
local before = ARGV[1]

local deleted = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', final, '-inf', '(' .. before, 'LIMIT', 0, 1000)) do
    local caller = redis.call('HGET', job_prefix .. id, 'caller') or ''
    if not redis.call('ZSCORE', webhooks_prefix .. caller, id) then
        delete(id)
        deleted = deleted + 1
    end
end
return deleted
