use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::Signal;

use crate::port::Port;
use crate::programs::{Directory, find, output, unprivileged};
use crate::server::{End, Plan, Server};

/// Where `servers run` tells its command the Postgres of the test run: `postgres://postgres@127.0.0.1:PORT`.
pub const POSTGRES_URL_VARIABLE: &str = "TEST_POSTGRES_URL";

const PACKAGE: &str = "postgresql";
const READY_LIMIT: Duration = Duration::from_mins(1);

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A Postgres whose superuser `postgres` needs no password from 127.0.0.1.
///
/// For tests it runs with `fsync=off`: what it confirmed survives the death of its processes, which is what the tests
/// cause, though not the machine's. `synchronous_commit` stays on.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    own: Option<(Server, Port)>,
}

impl Postgres {
    /// Starts a server of the caller's own.
    pub async fn start() -> Self {
        Self::start_in(Directory::make("postgres"), Port::claim(), false).await
    }

    /// Starts one on the data in the directory, and makes it when there is none. `durable`: what it confirmed survives
    /// the machine's death too.
    pub(crate) async fn start_in(directory: Directory, port: Port, durable: bool) -> Self {
        make_data(&directory, durable).await;
        let settings = [
            format!("port={}", port.number()),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            format!("fsync={}", if durable { "on" } else { "off" }),
            // In files of the data directory, so that nothing stays in /dev/shm after a kill.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ];
        let mut arguments = vec!["-D".to_owned(), directory.join("data").display().to_string()];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let plan = Plan {
            name: "Postgres",
            program: find("postgres", PACKAGE),
            arguments,
            environment: Vec::new(),
            end: End::Quit,
            ready_limit: READY_LIMIT,
        };
        let started = Self { port: port.number(), own: Some((Server::new(plan, directory), port)) };
        started.start_again().await;
        started
    }

    /// The server of the test run, which `servers run` started; without one a server of the caller's own.
    ///
    /// Others use it too: it is not killed, paused or set up differently.
    pub async fn shared() -> Self {
        let Ok(url) = std::env::var(POSTGRES_URL_VARIABLE) else { return Self::start().await };
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("{POSTGRES_URL_VARIABLE}={url} ends with no port")), own: None }
    }

    /// Makes a database that nobody else uses, and gives its URL.
    pub async fn database(&self) -> String {
        // Processes of one run share the server, and a process number may come back.
        let now = UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_nanos();
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{now}_{number}", std::process::id());
        self.sql("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// The superuser's URL of the database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port at 127.0.0.1, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs the statements in the database, as the superuser; gives the rows, one a line, columns parted by `|`.
    pub async fn sql(&self, database: &str, statements: &str) -> String {
        let directory = std::env::temp_dir();
        let mut psql = unprivileged(&find("psql", PACKAGE), &directory, "KILL");
        let port = self.port.to_string();
        psql.args(["-XqtA", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-d", database]);
        psql.args(["-c", statements]);
        output(psql).await
    }

    /// Ends the server's sessions and the server, with everything written.
    pub(crate) async fn stop(&self) {
        self.own().end(Signal::INT).await;
    }

    /// Ends it by its immediate stop: nothing is written any more, and the next start recovers.
    pub async fn stop_at_once(&self) {
        self.own().end(Signal::QUIT).await;
    }

    /// Kills the server with all its processes, as a crash would.
    pub async fn kill(&self) {
        self.own().kill().await;
    }

    /// Starts the killed server with the port and the data that it had, and waits until it has recovered.
    pub async fn start_again(&self) {
        self.own().start(|| self.answers()).await;
    }

    /// Starts it again whenever it has ended by itself. Does not return.
    pub(crate) async fn keep(&self) {
        self.own().keep(|| self.answers()).await;
    }

    async fn answers(&self) -> bool {
        let mut asked = self.own().command(&find("pg_isready", PACKAGE));
        asked.args(["-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        tokio::process::Command::from(asked).status().await.is_ok_and(|status| status.success())
    }

    /// Stops all its processes where they are: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.own().pause();
    }

    /// Lets the paused processes go on.
    pub fn resume(&self) {
        self.own().resume();
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.own().directory().join("data")
    }

    fn own(&self) -> &Server {
        let (server, _) =
            self.own.as_ref().expect("a shared Postgres is not for one test to stop: use Postgres::start");
        server
    }
}

async fn make_data(directory: &Directory, durable: bool) {
    let (data, begun) = (directory.join("data"), directory.join("data.begun"));
    if data.exists() {
        return;
    }
    let failed = |error| panic!("{}: {error}", begun.display());
    if begun.exists() {
        std::fs::remove_dir_all(&begun).unwrap_or_else(failed);
    }
    let mut initdb = unprivileged(&find("initdb", PACKAGE), directory.path(), "KILL");
    initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--pgdata"]).arg(&begun);
    initdb.args((!durable).then_some("--no-sync"));
    output(initdb).await;
    // Half of it would look like data.
    std::fs::rename(&begun, data).unwrap_or_else(failed);
}

impl Drop for Postgres {
    /// A killed Postgres leaves the piece of shared memory by which the next one on its data would know of it.
    fn drop(&mut self) {
        let Some((server, _)) = self.own.as_ref().filter(|(server, _)| !server.runs()) else { return };
        let lock = std::fs::read_to_string(server.directory().join("data/postmaster.pid")).unwrap_or_default();
        // The seventh line is the key and the number of the piece.
        if let Some(number) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            Command::new("ipcrm").args(["--shmem-id", number]).status().ok();
        }
    }
}
