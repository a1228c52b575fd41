-- Returns the id of the job to be claimed next: one whose lease has run out, else the first in the order of turns whose
-- caller runs fewer jobs than it may and has room for its audio. Jobs of more than `max_characters` are passed over where
-- their caller is in `without_long_of`, or that is null. Returns false if there is none.
local now, latest = ARGV[1], ARGV[2]
local max_size, max_own_size = tonumber(ARGV[3]), tonumber(ARGV[4])
local max_characters, without_long_of = tonumber(ARGV[5]), cjson.decode(ARGV[6])

local function too_long(caller, characters)
    return tonumber(characters or 0) > max_characters and (without_long_of == cjson.null or without_long_of[caller])
end

local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '(' .. latest, '+inf', 'LIMIT', 0, 100)) do
    due[#due + 1] = id  -- no pause is so long: another clock has set it
end
for _, id in ipairs(due) do
    redis.call('ZREM', delayed, id)
    redis.call('ZADD', turns, redis.call('HGET', job_prefix .. id, 'place') or 0, id)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', milliseconds(), 'LIMIT', 0, 100)) do
    local state, caller, characters = unpack(redis.call('HMGET', job_prefix .. id, 'state', 'caller', 'characters'))
    if state ~= 'running' then
        redis.call('ZREM', leases, id)
    elseif not too_long(caller or '', characters) then
        return id
    end
end

local STEP = 100
local MAX_TOO_LARGE = 100  -- jobs of a caller that are looked at for one that has room
local first, passed_over, too_large, callers_left = 0, {}, {}, redis.call('HLEN', queued_by)
while callers_left > 0 do
    local ids = redis.call('ZRANGE', turns, first, first + STEP - 1)
    if #ids == 0 then return false end
    for _, id in ipairs(ids) do
        local state, caller, concurrency, characters, expected, kept_size = unpack(redis.call('HMGET',
            job_prefix .. id, 'state', 'caller', 'concurrency', 'characters', 'expected', 'kept_size'))
        caller = caller or ''
        if state ~= 'queued' then
            redis.call('ZREM', turns, id)
            first = first - 1
        elseif not passed_over[caller] and not too_long(caller, characters) then
            local running = tonumber(redis.call('HGET', running_by, caller) or 0)
            local kept = tonumber(kept_size or 0)
            local needed = math.min(math.max(tonumber(expected or 0), kept), max_own_size)
            local full = check_audio(caller, needed, kept, max_size, max_own_size)
            local may_run = running < (tonumber(concurrency) or math.huge)
            if may_run and not full then return id end
            too_large[caller] = (too_large[caller] or 0) + 1
            if not may_run or too_large[caller] == MAX_TOO_LARGE then
                passed_over[caller] = true
                callers_left = callers_left - 1
            end
        end
    end
    first = first + STEP
end
return false
