//! What a server may leave behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// The processes that work in the directory, zombies aside.
pub fn processes_in(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").expect("Linux").flatten();
    let works_there =
        |process: &PathBuf| std::fs::read_link(process.join("cwd")).is_ok_and(|folder| folder.starts_with(directory));
    all.map(|entry| entry.path()).filter(works_there).collect()
}

pub async fn until(holds: impl AsyncFn() -> bool) {
    let polled = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), polled).await.expect("it holds within a minute");
}

/// The number of a piece of System V shared memory.
pub struct SharedMemory(String);

/// The piece that the Postgres on the data holds.
pub fn shared_memory_of(data: &Path) -> SharedMemory {
    let lock = std::fs::read_to_string(data.join("postmaster.pid")).expect("Postgres runs");
    SharedMemory(lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).expect("its number").to_owned())
}

impl SharedMemory {
    pub fn is_there(&self) -> bool {
        let all = std::fs::read_to_string("/proc/sysvipc/shm").expect("Linux");
        all.lines().any(|line| line.split_whitespace().nth(1) == Some(&self.0))
    }
}
