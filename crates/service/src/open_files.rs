//! How many files and connections the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one. The usual soft limit of 1,024 is for programs that use `select`;
/// a server that runs into it loses the connections to its own peers too. Call it before anything is bound.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where even this is forbidden, the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// How many the process may have open now.
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
