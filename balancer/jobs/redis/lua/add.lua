-- Adds jobs of one caller to the queue, all or none. Returns {'added', ids in order}: where the caller's idempotency key
-- is known already, the id of the earlier job; {'conflict'} where such a key was used for a different request; or
-- {'full', whether of audio, whether the caller's own share, used, limit, needed}.
local caller = ARGV[1]
local max_queued, max_own_queued = tonumber(ARGV[2]), tonumber(ARGV[3])
local max_size, max_own_size = tonumber(ARGV[4]), tonumber(ARGV[5])

local FIRST, FIELDS = 6, 8
local jobs, known, new, smallest = {}, {}, 0, math.huge
for first = FIRST, #ARGV, FIELDS do
    local id, key, digest, content, characters, concurrency, webhook, expected = unpack(ARGV, first,
        first + FIELDS - 1)
    local job = {id = id, key = key, digest = digest, content = content, characters = characters,
        concurrency = concurrency, webhook = webhook, expected = expected}
    if key ~= '' then
        local earlier = redis.call('GET', key)
        if earlier and redis.call('HEXISTS', job_prefix .. earlier, 'content') == 1 then
            known[key] = {id = earlier, digest = redis.call('HGET', job_prefix .. earlier, 'digest')}
        end
        if known[key] and known[key].digest ~= digest then return {'conflict'} end
        job.earlier = known[key] and known[key].id
        known[key] = known[key] or job
    end
    if not job.earlier then
        new = new + 1
        smallest = math.min(smallest, tonumber(expected))
    end
    jobs[#jobs + 1] = job
end

if new > 0 then
    local queued = tonumber(redis.call('HGET', counts, 'queued') or 0)
    local own_queued = tonumber(redis.call('HGET', queued_by, caller) or 0)
    -- Where a caller's part is the whole, it is the whole that is full.
    if max_own_queued < max_queued and own_queued + new > max_own_queued then
        return {'full', 0, 1, own_queued, max_own_queued, new}
    end
    if queued + new > max_queued then return {'full', 0, 0, queued, max_queued, new} end
    local full = check_audio(caller, math.min(smallest, max_own_size), 0, max_size, max_own_size)
    if full then return {'full', unpack(full)} end
end

local ids = {'added'}
for _, job in ipairs(jobs) do
    if not job.earlier then
        local number = redis.call('INCR', numbers)
        local at = place(next_turn(caller), number)
        redis.call('HSET', job_prefix .. job.id, 'state', 'queued', 'attempts', 0, 'place', at, 'caller', caller,
            'digest', job.digest, 'content', job.content, 'characters', job.characters, 'key', job.key,
            'concurrency', job.concurrency, 'webhook', job.webhook, 'expected', job.expected)
        if job.key ~= '' then redis.call('SET', job.key, job.id) end
        redis.call('ZADD', turns, at, job.id)
        count(caller, 'queued', 1)
    end
    ids[#ids + 1] = job.earlier or job.id
end
return ids
