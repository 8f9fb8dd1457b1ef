//! The scripts, each with the rules before it that all scripts of items share.

use std::sync::LazyLock;

use deadpool_redis::redis;

const PRELUDE: &str = include_str!("prelude.lua");

/// A Lua script, as text and as the name that Redis knows it by.
#[derive(Debug)]
pub struct Script {
    /// The whole text.
    pub text: String,
    /// Its SHA-1, in hexadecimal.
    pub sha: String,
}

impl Script {
    fn alone(text: &str) -> Self {
        Self { text: text.to_owned(), sha: redis::Script::new(text).get_hash().to_owned() }
    }

    /// By naming its engine it submits to the rules for scripts that may write: while a server takes no writes, being
    /// full, short of replicas or unable to save, it refuses such a script whole, whatever that would do.
    fn where_writes_are_taken(text: &str) -> Self {
        Self::alone(&format!("#!lua\n{text}"))
    }

    fn of_item(text: &str) -> Self {
        Self::alone(&format!("{PRELUDE}{text}"))
    }
}

/// All scripts; each file opens with its contract.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is named after its file")]
pub struct Scripts {
    pub reserve: Script,
    pub confirm: Script,
    pub release: Script,
    pub restock: Script,
    pub load: Script,
    pub open: Script,
    pub listed: Script,
    pub hold: Script,
    pub probe: Script,
    pub due: Script,
    pub counts: Script,
    pub hint_put: Script,
    pub hint_drop: Script,
    pub writable: Script,
}

/// The scripts, put together once.
pub static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    reserve: Script::of_item(include_str!("reserve.lua")),
    confirm: Script::of_item(include_str!("confirm.lua")),
    release: Script::of_item(include_str!("release.lua")),
    restock: Script::of_item(include_str!("restock.lua")),
    load: Script::of_item(include_str!("load.lua")),
    open: Script::of_item(include_str!("open.lua")),
    listed: Script::of_item(include_str!("listed.lua")),
    hold: Script::of_item(include_str!("hold.lua")),
    probe: Script::where_writes_are_taken(&format!("{PRELUDE}{}", include_str!("probe.lua"))),
    due: Script::of_item(include_str!("due.lua")),
    counts: Script::of_item(include_str!("counts.lua")),
    hint_put: Script::alone(include_str!("hint_put.lua")),
    hint_drop: Script::alone(include_str!("hint_drop.lua")),
    writable: Script::where_writes_are_taken(include_str!("writable.lua")),
});

impl Scripts {
    /// All of them.
    pub fn all(&self) -> [&Script; 14] {
        let Self { reserve, confirm, release, restock, load, open, listed, hold, probe, due, counts, .. } = self;
        let Self { hint_put, hint_drop, writable, .. } = self;
        [
            reserve, confirm, release, restock, load, open, listed, hold, probe, due, counts, hint_put, hint_drop,
            writable,
        ]
    }
}
