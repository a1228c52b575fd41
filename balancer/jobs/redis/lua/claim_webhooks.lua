-- Returns the ids of jobs whose webhooks are due, as far as there is room for them, and postpones these until
-- `lease_end`, so that no other host delivers them meanwhile. Callers of whom fewer are being delivered come first.
local now, latest, lease_end = ARGV[1], ARGV[2], ARGV[3]
local total, per_caller, per_receiver = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local busy, busy_receivers, being_delivered = cjson.decode(ARGV[7]), cjson.decode(ARGV[8]), cjson.decode(ARGV[9])

local callers = redis.call('SMEMBERS', webhook_callers)
table.sort(callers, function(one, other)
    local of_one, of_other = busy[one] or 0, busy[other] or 0
    if of_one ~= of_other then return of_one < of_other end
    return one < other
end)

local MAX_READ = 200
local claimed = {}
for _, caller in ipairs(callers) do
    local list, receivers = webhooks_prefix .. caller, busy_receivers[caller] or {}
    local left = math.min(total - #claimed, per_caller - (busy[caller] or 0))
    if total <= #claimed then break end
    local due = redis.call('ZRANGEBYSCORE', list, '-inf', now, 'LIMIT', 0, MAX_READ)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', list, '(' .. latest, '+inf', 'LIMIT', 0, MAX_READ)) do
        due[#due + 1] = id  -- no pause is so long: another clock has set it
    end
    for _, id in ipairs(due) do
        if left <= 0 then break end
        local url = redis.call('HGET', job_prefix .. id, 'webhook') or ''
        if not being_delivered[id] and (receivers[url] or 0) < per_receiver then
            receivers[url] = (receivers[url] or 0) + 1
            left = left - 1
            redis.call('ZADD', list, lease_end, id)
            claimed[#claimed + 1] = id
        end
    end
end
return claimed
