-- Shows one event, forward only. All of it or nothing: Redis runs a script as one command.
--
-- KEYS  1 latest of the user (hash)  2 latest of user and maker (hash)
--       3 time series (sorted set by measured_at)
--       4 what is known of each event of the series: event id -> "revision measured_at", "revision -" once gone
-- ARGV  1 event id  2 revision  3 measured_at (µs)  4 "1" there, "2" gone  5 json
--       6 time to live (s)  7 most members of the series
-- Gives 1 if KEYS[1] is left without a latest by a tombstone, plus 2 if KEYS[2] is.

local id, revision, at = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local gone, json, ttl, cap = ARGV[4] == '2', ARGV[5], ARGV[6], tonumber(ARGV[7])

local known_revision, known_at = 0, '-'
local known = redis.call('HGET', KEYS[4], id)
if known then
  local found_revision, found_at = string.match(known, '^(%d+) (.+)$')
  known_revision, known_at = tonumber(found_revision), found_at
end
-- A later revision was shown: this one is late.
if revision < known_revision then
  return 0
end

-- The series: the member of an earlier revision goes, the one of this revision comes.
if not known or revision > known_revision then
  if known_at ~= '-' then
    local named = '"event_id":"' .. id .. '"'
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], known_at, known_at)) do
      if string.find(member, named, 1, true) then
        redis.call('ZREM', KEYS[3], member)
      end
    end
  end
  if gone then
    redis.call('HSET', KEYS[4], id, ARGV[2] .. ' -')
    -- Tombstones are remembered so that a late revision does not come back; a few, not all of them for ever.
    if redis.call('HLEN', KEYS[4]) > redis.call('ZCARD', KEYS[3]) + 64 then
      local all = redis.call('HGETALL', KEYS[4])
      for i = 1, #all, 2 do
        if all[i] ~= id and string.sub(all[i + 1], -2) == ' -' then
          redis.call('HDEL', KEYS[4], all[i])
        end
      end
    end
  else
    redis.call('ZADD', KEYS[3], at, json)
    redis.call('HSET', KEYS[4], id, ARGV[2] .. ' ' .. at)
    local over = redis.call('ZCARD', KEYS[3]) - cap
    if over > 0 then
      for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, over - 1)) do
        local old = string.match(member, '"event_id":"([^"]+)"')
        if old then
          redis.call('HDEL', KEYS[4], old)
        end
      end
      redis.call('ZREMRANGEBYRANK', KEYS[3], 0, over - 1)
    end
  end
end
redis.call('EXPIRE', KEYS[3], ttl)
redis.call('EXPIRE', KEYS[4], ttl)

-- The latest: later measured wins, then the higher revision; a correction of what is shown replaces it.
local holes = 0
for i = 1, 2 do
  local shown = redis.call('HMGET', KEYS[i], 'event_id', 'revision', 'measured_at')
  local shown_revision, shown_at = tonumber(shown[2] or 0), tonumber(shown[3] or 0)
  if gone then
    if not shown[1] or (shown[1] == id and shown_revision <= revision) then
      redis.call('DEL', KEYS[i])
      holes = holes + i
    end
  else
    local forward
    if not shown[1] then
      forward = true
    elseif shown[1] == id then
      forward = revision > shown_revision
    else
      local mine = tonumber(at)
      forward = mine > shown_at or (mine == shown_at and revision > shown_revision)
    end
    if forward then
      redis.call('HSET', KEYS[i], 'event_id', id, 'revision', ARGV[2], 'measured_at', at, 'json', json)
      redis.call('EXPIRE', KEYS[i], ttl)
    end
  end
end
return holes
