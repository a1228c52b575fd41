-- Moves a job to another state and updates every index. Returns {1}; or {0}, with nothing changed, if there is no such
-- job, if it is in none of the expected states, if it has been claimed again since (its attempts differ), or if its caller
-- runs as many jobs as it may; or {0, 1, whether the caller's own share is full, used, limit, needed} if there is no room
-- for its audio. The segments of a job that has ended, or is to be begun anew, are dropped.
local id, expected_states, expected_attempts = ARGV[1], ARGV[2], ARGV[3]  -- the states are separated by spaces
local state, attempts, content = ARGV[4], ARGV[5], ARGV[6]
local due, finished, lease = ARGV[7], ARGV[8], ARGV[9]                    -- Unix seconds, 0: none; milliseconds
local part, size, webhook_due, unreadable = ARGV[10], tonumber(ARGV[11]), ARGV[12], ARGV[13]  -- '': none
local segmentation, expected, max_size, max_own_size = ARGV[14], ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17])

local job = job_prefix .. id
local current, current_attempts, caller, at, concurrency = unpack(redis.call('HMGET', job, 'state', 'attempts', 'caller',
    'place', 'concurrency'))
if not current or not string.find(expected_states, current, 1, true) then return {0} end
if expected_attempts ~= '' and current_attempts ~= expected_attempts then return {0} end
caller = caller or ''
if state == 'running' then
    local running = tonumber(redis.call('HGET', running_by, caller) or 0)
    if current ~= 'running' and running >= (tonumber(concurrency) or math.huge) then return {0} end
end
local counted, kept_size = unpack(redis.call('HMGET', job, 'size', 'kept_size'))
counted, kept_size = tonumber(counted or 0), tonumber(kept_size or 0)
local full = false
if state == 'done' and size > counted then
    full = check_audio(caller, size, counted, max_size, max_own_size)
elseif state == 'running' and current ~= 'running' then
    full = check_audio(caller, math.min(math.max(size, kept_size), max_own_size), counted, max_size, max_own_size)
end
if full then
    if part ~= '' then redis.call('DEL', part) end
    return {0, unpack(full)}
end

-- First: it fails, with nothing changed, if the audio that was sent has expired.
if part ~= '' then
    redis.call('RENAME', part, audio_prefix .. id)
    redis.call('PERSIST', audio_prefix .. id)
end
leave(id)
if segmentation == '' or state ~= 'queued' and state ~= 'running' then
    redis.call('DEL', segments_prefix .. id)
    redis.call('HDEL', job, 'plan', 'kept', 'playable', 'playable_size')
    kept_size = 0
end
if unreadable ~= '' then redis.call('HSET', job, 'unreadable', unreadable) end
set_size(id, caller, size, kept_size)
redis.call('HSET', job, 'state', state, 'attempts', attempts, 'content', content, 'expected', expected)
count(caller, state, 1)
count(caller, current, -1)

if state == 'queued' then
    if tonumber(due) > 0 then redis.call('ZADD', delayed, due, id) else redis.call('ZADD', turns, at or 0, id) end
elseif state == 'running' then
    redis.call('ZADD', leases, milliseconds() + lease, id)
    local turn = math.floor(tonumber(at or 0) / ARRIVALS)
    if turn > tonumber(redis.call('HGET', counts, 'turn') or 0) then redis.call('HSET', counts, 'turn', turn) end
else
    redis.call('ZADD', final, finished, id)
    if state == 'failed' then redis.call('ZADD', failed, finished, id) end
    set_webhook(caller, id, webhook_due)
end
return {1}
