-- Renews the leases of claims, each given by its job and attempt. Claims that no longer hold are left out.
local lease = tonumber(ARGV[1])

local lease_end = milliseconds() + lease
for first = 2, #ARGV, 2 do
    local id, attempts = ARGV[first], ARGV[first + 1]
    if holds(id, attempts) then redis.call('ZADD', leases, 'XX', lease_end, id) end
end
