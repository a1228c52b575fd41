-- Moves a job to another state and updates every index. Returns 1; or 0, with nothing changed, if there is no such job,
-- if it is in none of the expected states, or if it has been claimed again since (its attempts differ).
local stream, counts, queued, delayed, final, failed, webhooks =
    KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local job_prefix, audio_prefix, group = ARGV[1], ARGV[2], ARGV[3]
local id, expected_states, expected_attempts = ARGV[4], ARGV[5], ARGV[6]  -- the states are separated by spaces
local state, attempts, content = ARGV[7], ARGV[8], ARGV[9]
local due, finished = ARGV[10], ARGV[11]                                  -- Unix seconds, 0: none
local audio, webhook_due, entry = ARGV[12], ARGV[13], ARGV[14]            -- '': none; `entry` of the stream

local job = job_prefix .. id
local current = redis.call('HGET', job, 'state')
if not current or not string.find(expected_states, current, 1, true) then return 0 end
if redis.call('HGET', job, 'attempts') ~= expected_attempts then return 0 end

redis.call('HSET', job, 'state', state, 'attempts', attempts, 'content', content)
redis.call('HINCRBY', counts, current, -1)
redis.call('HINCRBY', counts, state, 1)
for _, index in ipairs({queued, delayed, final, failed}) do redis.call('ZREM', index, id) end
if entry ~= '' and state ~= 'running' then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
end

if state == 'queued' then
    redis.call('ZADD', queued, redis.call('HGET', job, 'number'), id)
    if tonumber(due) > 0 then redis.call('ZADD', delayed, due, id) else redis.call('XADD', stream, '*', 'id', id) end
elseif state ~= 'running' then
    redis.call('ZADD', final, finished, id)
    if state == 'failed' then redis.call('ZADD', failed, finished, id) end
    if audio ~= '' then redis.call('SET', audio_prefix .. id, audio) end
    if webhook_due ~= '' then redis.call('ZADD', webhooks, webhook_due, id) end
end
return 1
