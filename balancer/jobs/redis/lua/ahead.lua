-- Returns how many jobs are queued before each of the given ones, and how many characters they have, in pairs. Only the
-- first `max_counted` jobs are read; where there are more, their average stands for the rest.
local max_counted = tonumber(ARGV[1])

local sums, characters = {[0] = 0}, 0
for position, id in ipairs(redis.call('ZRANGE', turns, 0, max_counted - 1)) do
    characters = characters + tonumber(redis.call('HGET', job_prefix .. id, 'characters') or 0)
    sums[position] = characters
end
local waiting = redis.call('ZCARD', turns)

local answer = {}
for index = 2, #ARGV do
    local rank = redis.call('ZRANK', turns, ARGV[index]) or waiting
    answer[#answer + 1] = rank
    answer[#answer + 1] = sums[rank] or math.floor(characters * rank / #sums)
end
return answer
