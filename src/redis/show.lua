-- Shows events, one after another, forward only. All of it or nothing: Redis runs a script as one command.
--
-- KEYS  four of each event:
--       1 latest of the user (hash)  2 latest of user and maker (hash)
--       3 time series (sorted set by measured_at)
--       4 what is known of each event of the series: event id -> "revision measured_at", "revision -" once gone
-- ARGV  1 time to live (s)  2 most members of the series, then five of each event:
--       1 event id  2 revision  3 measured_at (µs)  4 "1" there, "2" gone  5 json
-- Gives for each event 1 if its first key is left without a latest by a tombstone, plus 2 if its second is.

local ttl, cap = ARGV[1], tonumber(ARGV[2])
-- Keys that live on; each is told once.
local lives = {}

local function show(latest, series, knowns, id, revision_text, at, gone, json)
  local revision = tonumber(revision_text)
  local known_revision, known_at = 0, '-'
  local known = redis.call('HGET', knowns, id)
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
      for _, member in ipairs(redis.call('ZRANGEBYSCORE', series, known_at, known_at)) do
        if string.find(member, named, 1, true) then
          redis.call('ZREM', series, member)
        end
      end
    end
    if gone then
      redis.call('HSET', knowns, id, revision_text .. ' -')
      -- Tombstones are remembered so that a late revision does not come back; a few, not all of them for ever.
      if redis.call('HLEN', knowns) > redis.call('ZCARD', series) + 64 then
        local all = redis.call('HGETALL', knowns)
        for i = 1, #all, 2 do
          if all[i] ~= id and string.sub(all[i + 1], -2) == ' -' then
            redis.call('HDEL', knowns, all[i])
          end
        end
      end
    else
      redis.call('ZADD', series, at, json)
      redis.call('HSET', knowns, id, revision_text .. ' ' .. at)
      local over = redis.call('ZCARD', series) - cap
      if over > 0 then
        for _, member in ipairs(redis.call('ZRANGE', series, 0, over - 1)) do
          local old = string.match(member, '"event_id":"([^"]+)"')
          if old then
            redis.call('HDEL', knowns, old)
          end
        end
        redis.call('ZREMRANGEBYRANK', series, 0, over - 1)
      end
    end
  end
  lives[series], lives[knowns] = true, true

  -- The latest: later measured wins, then the higher revision; a correction of what is shown replaces it.
  local holes = 0
  for i = 1, 2 do
    local shown = redis.call('HMGET', latest[i], 'event_id', 'revision', 'measured_at')
    local shown_revision, shown_at = tonumber(shown[2] or 0), tonumber(shown[3] or 0)
    if gone then
      if not shown[1] or (shown[1] == id and shown_revision <= revision) then
        redis.call('DEL', latest[i])
        lives[latest[i]] = nil
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
        redis.call(
          'HSET', latest[i], 'event_id', id, 'revision', revision_text, 'measured_at', at, 'json', json
        )
        lives[latest[i]] = true
      end
    end
  end
  return holes
end

local answers = {}
for n = 0, #KEYS / 4 - 1 do
  local k, a = n * 4, n * 5 + 2
  answers[n + 1] = show(
    { KEYS[k + 1], KEYS[k + 2] }, KEYS[k + 3], KEYS[k + 4],
    ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4] == '2', ARGV[a + 5]
  )
end
for key in pairs(lives) do
  redis.call('EXPIRE', key, ttl)
end
return answers
