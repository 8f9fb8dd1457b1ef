-- counts: an item's numbers as they stand, open or not.
-- KEYS[1..7] see prelude
-- answers {"counts", epoch, received, available, held, sold, holds} | {"absent"}, also where one is no integer
local item = look()
if not (item.epoch > 0 and item.received and item.available and item.held and item.sold and item.holds) then
  return { 'absent' }
end
return { 'counts', item.epoch, item.received, item.available, item.held, item.sold, item.holds }
