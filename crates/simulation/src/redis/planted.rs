//! Bugs that live in Lua: the product's own text, changed at the line that holds the rule before a script is loaded.

use std::borrow::Cow;

use inventory::stock::redis::scripts::{SCRIPTS, Script};
use service::planted::{self, Bug};

/// What a script knows the connection's first `master_replid` by, under [`Bug::IncarnationCached`].
pub const CONNECTED_TO: &str = "CONNECTED_TO";

/// A line of the scripts, and what it becomes.
struct Planted {
    bug: Bug,
    /// How many scripts have the line: once each.
    scripts: usize,
    line: &'static str,
    becomes: &'static str,
}

/// Scripts that begin with the prelude.
const OF_AN_ITEM: usize = 11;

const TABLE: [Planted; 5] = [
    Planted {
        bug: Bug::NoDedupe,
        scripts: 1,
        line: "if not hold or hold.number ~= number then return { 'already_done' } end\n",
        // The units of another sale come from what is free, so that the numbers add up.
        becomes: "if hold and hold.number ~= number then return { 'already_done' } end
local sold = not hold and marker_of(item)
if not hold and not (sold and sold.number == number) then return { 'already_done' } end
if sold then
  hold = sold
  item.available, item.held, item.holds = item.available - hold.quantity, item.held + hold.quantity, item.holds + 1
end
",
    },
    Planted {
        bug: Bug::RestockAtAnyEpoch,
        scripts: 1,
        line: "if epoch == item.epoch and redis.call('SISMEMBER', KEYS[5], id) == 0 then\n",
        becomes: "if redis.call('SISMEMBER', KEYS[5], id) == 0 then\n",
    },
    Planted {
        bug: Bug::IncarnationCached,
        scripts: OF_AN_ITEM,
        line: "incarnation = replication:match('master_replid:(%x+)'),\n",
        becomes: "incarnation = CONNECTED_TO,\n",
    },
    Planted {
        bug: Bug::IncarnationIsRunId,
        scripts: OF_AN_ITEM,
        line: "incarnation = replication:match('master_replid:(%x+)'),\n",
        becomes: "incarnation = redis.call('INFO', 'server'):match('run_id:(%x+)'),\n",
    },
    Planted {
        bug: Bug::HoldsUncounted,
        scripts: OF_AN_ITEM,
        line: "  if read('HLEN', KEYS[3]) ~= item.holds or read('ZCARD', KEYS[4]) ~= item.holds
    or (item.first ~= nil) ~= (item.holds > 0) or ",
        becomes: "  if ",
    },
];

/// The bug of this thread, if it lives in Lua.
pub fn bug() -> Option<Bug> {
    TABLE.iter().map(|entry| entry.bug).find(|bug| planted::is(*bug))
}

/// A script's text, with the bug of this thread.
pub fn text(script: &Script) -> Cow<'_, str> {
    let Some(entry) = TABLE.iter().find(|entry| planted::is(entry.bug)) else { return Cow::Borrowed(&script.text) };
    entry.check();
    script.text.replace(entry.line, entry.becomes).into()
}

impl Planted {
    /// The product has the line where the table says: else the bug would not be planted, and nobody would know.
    fn check(&self) {
        let counts = SCRIPTS.all().map(|script| script.text.matches(self.line).count());
        let once = counts.iter().all(|count| *count <= 1) && counts.iter().sum::<usize>() == self.scripts;
        assert!(once, "the line of {:?} is so often in each script: {counts:?}", self.bug);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_line_is_the_product_s_once_in_each_script_that_has_it() {
        TABLE.iter().for_each(Planted::check);
    }

    #[test]
    fn a_script_has_the_bug_of_its_thread_and_no_other() {
        let confirm = &SCRIPTS.confirm;
        assert_eq!(text(confirm), confirm.text);
        planted::with(Some(Bug::NoDedupe), || {
            assert_eq!(bug(), Some(Bug::NoDedupe));
            assert!(text(confirm).contains("if sold then"));
            assert_eq!(text(&SCRIPTS.reserve), SCRIPTS.reserve.text);
        });
        planted::with(Some(Bug::NoFence), || assert_eq!((bug(), text(confirm)), (None, Cow::Borrowed(&*confirm.text))));
    }
}
