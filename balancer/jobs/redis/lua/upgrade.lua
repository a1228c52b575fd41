-- Brings the jobs of an earlier version, which kept a stream and one list of webhooks, to the indexes of this one.
local stream, queued, webhooks, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local function describe(id)
    local job = job_prefix .. id
    local readable, content = pcall(cjson.decode, redis.call('HGET', job, 'content') or '')
    if not readable or type(content) ~= 'table' then content = {} end
    local caller = type(content.owner) == 'string' and content.owner or content.caller
    if type(caller) ~= 'string' then caller = '' end
    local webhook = type(content.webhook) == 'string' and content.webhook or ''
    redis.call('HSET', job, 'caller', caller, 'webhook', webhook)
    return caller
end

for _, id in ipairs(redis.call('ZRANGE', queued, 0, -1)) do
    local state, number = unpack(redis.call('HMGET', job_prefix .. id, 'state', 'number'))
    if state == 'queued' then
        local caller = describe(id)
        local at = place(next_turn(caller), tonumber(number or 0))
        redis.call('HSET', job_prefix .. id, 'place', at)
        if not redis.call('ZSCORE', delayed, id) then redis.call('ZADD', turns, at, id) end
        add_to(queued_by, caller, 1)
    end
end
if redis.call('EXISTS', stream) == 1 then
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
        local id = entry[2][2]
        if redis.call('HGET', job_prefix .. id, 'state') == 'running' and not redis.call('ZSCORE', leases, id) then
            redis.call('ZADD', leases, milliseconds() + lease, id)
            add_to(running_by, describe(id), 1)
        end
    end
end
local listed = redis.call('ZRANGE', webhooks, 0, -1, 'WITHSCORES')
for index = 1, #listed, 2 do set_webhook(describe(listed[index]), listed[index], listed[index + 1]) end
redis.call('DEL', stream, queued, webhooks)
