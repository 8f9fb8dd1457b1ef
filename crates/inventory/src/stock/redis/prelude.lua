-- prelude: what the scripts of an item share. It stands before each of them, so that every script has the same idea of
-- an open item.
-- KEYS[1] <item>                units available, a plain integer
-- KEYS[2] {<item>}:ledger       hash: epoch, lease (the same, so that a hand cannot raise it alone), incarnation, received,
--                               held, sold, number (of the newest hold), and how many entries holds, due and restocks
--                               have: holds, restocks
-- KEYS[3] {<item>}:holds        hash: id -> "<quantity>:<number>:<quantity>:<number>", twice, so that a hand cannot
--                               change one alone
-- KEYS[4] {<item>}:due          sorted set: id by deadline, in microseconds since 1970
-- KEYS[5] {<item>}:restocks     set: ids that were applied under this lease
-- KEYS[6] {<tag>}:items         registry, sorted set: the items that were loaded, by name
-- KEYS[7] {<tag>}:heads         registry, sorted set: the items that have holds, by their first deadline
-- KEYS[8] {<item>}:marker:<id>  "released:<epoch>" | "confirmed:<epoch>:<quantity>:<number>:<deadline>"; expires
-- Whatever can fail comes before a script's first write: Redis takes nothing back.

-- Beyond it a Lua number is not exact.
local EXACT_MAX = 9007199254740991
-- Most units of one hold.
local QUANTITY_MAX = 1000000

-- The number that a text says, if it is an integer written the one way there is; else nil.
local function integer(text)
  if type(text) ~= 'string' or #text > 17 then return nil end
  if text ~= '0' and not text:match('^%-?[1-9]%d*$') then return nil end
  local number = tonumber(text)
  if number > -EXACT_MAX and number < EXACT_MAX then return number end
  return nil
end

-- The other way: tostring would round.
local function digits(number) return string.format('%.0f', number) end

-- A read that gives nil where the key is of another type, which is a hand's doing and no reason to fail.
local function read(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return nil end
  return reply
end

-- In microseconds since 1970.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- The deadline that comes first, or nil.
local function first_deadline()
  local first = read('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  return first and integer(first[2]) or nil
end

-- Whether the numbers add up: no unit missing, none twice, and every hold has at least one.
local function fits(item)
  for _, field in ipairs({ 'received', 'available', 'held', 'sold', 'number', 'holds', 'restocks' }) do
    local number = item[field]
    if not number or number < 0 or number >= EXACT_MAX then return false end
  end
  return item.received == item.available + item.held + item.sold
    and item.held >= item.holds
    and (item.held == 0) == (item.holds == 0)
end

-- Why the item is not open; nil if it is. Takes the same time however many holds there are.
local function closed(item, least)
  if not item.master then return 'replica' end
  if item.epoch == 0 then return 'missing' end
  if item.loaded_in ~= item.incarnation then return 'incarnation' end
  if item.claimed ~= item.epoch then return 'lease' end
  if not fits(item) then return 'numbers' end
  if read('HLEN', KEYS[3]) ~= item.holds or read('ZCARD', KEYS[4]) ~= item.holds
    or (item.first ~= nil) ~= (item.holds > 0) or read('SCARD', KEYS[5]) ~= item.restocks then
    return 'counts'
  end
  -- A hold whose item the registry does not name would never be due.
  local head = read('ZSCORE', KEYS[7], KEYS[1])
  if head == nil or integer(head) ~= item.first or not read('ZSCORE', KEYS[6], KEYS[1]) then return 'registry' end
  if least and item.epoch < least then return 'epoch' end
  return nil
end

-- The item as it stands. `why` says that it is not open. The incarnation is read here, at every call: a value that was
-- read earlier may be that of a life which has ended.
local function look(least)
  local replication = redis.call('INFO', 'replication')
  local fields = read('HMGET', KEYS[2],
    'incarnation', 'epoch', 'received', 'held', 'sold', 'number', 'holds', 'restocks', 'lease') or {}
  local epoch, lease = integer(fields[2]) or 0, integer(fields[9]) or 0
  local item = {
    master = replication:match('role:(%a+)') == 'master',
    incarnation = replication:match('master_replid:(%x+)'),
    loaded_in = fields[1],
    -- Whoever asks for the next lease goes above this: one made-up number must not use up those that there are.
    epoch = math.max(math.min(epoch, lease), 0),
    claimed = math.max(epoch, lease),
    received = integer(fields[3]),
    held = integer(fields[4]),
    sold = integer(fields[5]),
    number = integer(fields[6]),
    holds = integer(fields[7]),
    restocks = integer(fields[8]),
    available = integer(read('GET', KEYS[1])),
    first = first_deadline(),
  }
  item.why = closed(item, least)
  return item
end

local function not_open(why) return { 'not_open', why } end

-- The hold of this id on an open item: nil if there is none, `broken` if a hand has touched it so that it shows.
local function hold_of(item, id)
  local text, deadline = redis.call('HGET', KEYS[3], id), redis.call('ZSCORE', KEYS[4], id)
  if not text and not deadline then return nil end
  local _, quantity, number = (text or ''):match('^((%d+):(%d+)):%1$')
  local hold = { quantity = integer(quantity), number = integer(number), deadline = integer(deadline) }
  hold.broken = not (hold.quantity and hold.number and hold.deadline and hold.number > 0
    and hold.number <= item.number and hold.quantity > 0 and hold.quantity <= QUANTITY_MAX
    and hold.quantity <= item.held)
  return hold
end

-- What the id is marked as under this lease: {kind, quantity, number, deadline}, the last three where it was confirmed.
-- A marker that a hand has touched is none: forgetting one is safe.
local function marker_of(item)
  local text = read('GET', KEYS[8]) or ''
  local epoch = text:match('^released:(%d+)$')
  if epoch then return integer(epoch) == item.epoch and { kind = 'released' } or nil end
  local quantity, number, deadline
  epoch, quantity, number, deadline = text:match('^confirmed:(%d+):(%d+):(%d+):(%d+)$')
  local marker = { kind = 'confirmed', quantity = integer(quantity), number = integer(number),
    deadline = integer(deadline) }
  return integer(epoch) == item.epoch and marker.quantity and marker.number and marker.deadline and marker or nil
end

-- Writes an item's numbers and its first deadline.
local function save(item)
  redis.call('HSET', KEYS[2], 'received', digits(item.received), 'held', digits(item.held), 'sold', digits(item.sold),
    'number', digits(item.number), 'holds', digits(item.holds), 'restocks', digits(item.restocks))
  redis.call('SET', KEYS[1], digits(item.available))
  local first = first_deadline()
  if not first then
    redis.call('ZREM', KEYS[7], KEYS[1])
  elseif first ~= item.first then
    redis.call('ZADD', KEYS[7], digits(first), KEYS[1])
  end
end

-- Takes an item out of the registry that nothing but a load can open again. How many heads that took out: a Redis that
-- refuses all writes keeps them.
local function unregister(item)
  if item.why ~= 'missing' and item.why ~= 'incarnation' then return 0 end
  read('ZREM', KEYS[6], KEYS[1])
  return read('ZREM', KEYS[7], KEYS[1]) or 0
end
