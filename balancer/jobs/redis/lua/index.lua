-- Stands before every script of the jobs: the keys, and the functions that keep every index of a job in step.
local numbers, counts, turns, delayed, leases, final, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6],
    KEYS[7]
local webhook_callers, queued_by, running_by, size_by, last_turns = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local job_prefix, audio_prefix, webhooks_prefix, segments_prefix = KEYS[13], KEYS[14], KEYS[15], KEYS[16]

-- A place in the queue is the turn of the caller, and within a turn the order of arrival.
local ARRIVALS = 1048576
local function place(turn, number) return turn * ARRIVALS + number % ARRIVALS end

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function add_to(hash, field, by)
    if by ~= 0 and redis.call('HINCRBY', hash, field, by) == 0 then redis.call('HDEL', hash, field) end
end

-- Counts one job of a caller more or less in a state.
local function count(caller, state, by)
    redis.call('HINCRBY', counts, state, by)
    if state == 'running' then add_to(running_by, caller, by) end
    if state == 'queued' then
        add_to(queued_by, caller, by)
        if redis.call('HEXISTS', queued_by, caller) == 0 then redis.call('HDEL', last_turns, caller) end
    end
end

local function count_size(caller, by)
    add_to(counts, 'size', by)
    add_to(size_by, caller, by)
end

-- Whether a claim, given by its job and attempt, still holds.
local function holds(id, attempts)
    local state, current = unpack(redis.call('HMGET', job_prefix .. id, 'state', 'attempts'))
    return state == 'running' and current == attempts
end

-- Records what is reserved for a job's audio, or its size, and how much of it is kept in segments. These are part of what
-- is reserved, so the larger of the two counts: the field `size`.
local function set_size(id, caller, reserved, kept_size)
    local job = job_prefix .. id
    local size = math.max(reserved, kept_size)
    count_size(caller, size - tonumber(redis.call('HGET', job, 'size') or 0))
    redis.call('HSET', job, 'size', size, 'reserved', reserved, 'kept_size', kept_size)
end

-- Whether audio of a caller, with `more` bytes where `counted` were, exceeds the limits, or these are reached: false, or
-- {1, whether its own share is full, used, limit, more}. Where a caller's part is the whole, it is the whole that is full.
local function check_audio(caller, more, counted, max_size, max_own_size)
    local size = tonumber(redis.call('HGET', counts, 'size') or 0) - counted
    local own_size = tonumber(redis.call('HGET', size_by, caller) or 0) - counted
    more = math.max(1, more)
    if max_own_size < max_size and own_size + more > max_own_size then
        return {1, 1, own_size, max_own_size, more}
    end
    if size + more > max_size then return {1, 0, size, max_size, more} end
    return false
end

-- The turn of a caller's next job.
local function next_turn(caller)
    local turn = math.max(tonumber(redis.call('HGET', counts, 'turn') or 0),
        tonumber(redis.call('HGET', last_turns, caller) or 0)) + 1
    redis.call('HSET', last_turns, caller, turn)
    return turn
end

-- Takes a job out of the indexes of its state. Redis lets a script that begins with this go on where memory is full.
local function leave(id)
    for _, index in ipairs({turns, delayed, leases, final, failed}) do redis.call('ZREM', index, id) end
end

-- Puts the webhook of a job on the list of its caller, or takes it off: `due` is '' then.
local function set_webhook(caller, id, due)
    local list = webhooks_prefix .. caller
    redis.call('ZREM', list, id)
    if due ~= '' then
        redis.call('ZADD', list, due, id)
        redis.call('SADD', webhook_callers, caller)
    elseif redis.call('EXISTS', list) == 0 then
        redis.call('SREM', webhook_callers, caller)
    end
end

-- Deletes a job that has ended, with its audio.
local function delete(id)
    local job = job_prefix .. id
    local state, caller, size, key = unpack(redis.call('HMGET', job, 'state', 'caller', 'size', 'key'))
    leave(id)
    redis.call('DEL', job, audio_prefix .. id, segments_prefix .. id)
    if key and key ~= '' then redis.call('DEL', key) end
    set_webhook(caller or '', id, '')
    if state then
        count(caller or '', state, -1)
        count_size(caller or '', -(tonumber(size) or 0))
    end
end
