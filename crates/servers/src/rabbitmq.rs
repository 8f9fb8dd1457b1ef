use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::port::Port;
use crate::programs::{Directory, find, output, unprivileged};
use crate::server::{End, Plan, Server};

/// Where `servers run` tells its command the RabbitMQ of the test run: `amqp://guest:guest@127.0.0.1:PORT`.
pub const RABBITMQ_URL_VARIABLE: &str = "TEST_RABBITMQ_URL";
/// Where `servers run` tells its command the directory of the test run's RabbitMQ.
pub const RABBITMQ_DIRECTORY_VARIABLE: &str = "TEST_RABBITMQ_DIRECTORY";

const PACKAGE: &str = "rabbitmq-server";
const READY_LIMIT: Duration = Duration::from_mins(2);
/// In the directory: the environment of `rabbitmqctl`, for the processes that share the server.
const CTL_ENVIRONMENT: &str = "ctl-environment";
/// In the directory: a file for each virtual host that [`RabbitMq::prepare_vhosts`] made and nobody has taken.
const VHOSTS_LEFT: &str = "vhosts-left";

/// A RabbitMQ whose user `guest` may do all in every virtual host.
#[derive(Debug)]
pub struct RabbitMq {
    port: u16,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    server: Server,
    // After the server, which is registered with it.
    _names: Server,
    _ports: [Port; 3],
}

impl RabbitMq {
    /// Starts a server of the caller's own.
    pub async fn start() -> Self {
        let ports = [Port::claim(), Port::claim(), Port::claim()];
        // Names come from the port, so that no two nodes share one.
        let node = format!("test{}@localhost", ports[0].number());
        Self::start_in(["rabbitmq", "epmd"].map(Directory::make), ports, node).await
    }

    /// Starts one on the data in the first directory, which belongs to the node of that name; the second one is for the
    /// register of names. The ports are for clients, for other nodes, and for the register.
    pub(crate) async fn start_in([directory, register]: [Directory; 2], ports: [Port; 3], node: String) -> Self {
        let [listener, distribution, names] = ports.each_ref().map(Port::number);
        let path = directory.path().to_owned();
        // A cookie is no secret at 127.0.0.1, where `guest` may connect as well.
        directory.write(".erlang.cookie", "servers");
        directory.write("plugins", "[].\n");
        directory.write("rabbitmq.conf", &settings(listener));
        let names_port = ("ERL_EPMD_PORT", names.to_string());
        let epmd = start_epmd(register, names_port.clone()).await;
        let node = ("RABBITMQ_NODENAME", node);
        let environment = environment(&path, distribution, [names_port.clone(), node.clone()]);
        let shared = [names_port, node].map(|(name, value)| (name.to_owned(), value));
        let lines = shared.each_ref().map(|(name, value)| format!("{name}={value}")).join("\n");
        directory.write(CTL_ENVIRONMENT, &lines);
        let plan = Plan {
            name: "RabbitMQ",
            program: find("rabbitmq-server", PACKAGE),
            arguments: Vec::new(),
            environment,
            end: End::Kill,
            ready_limit: READY_LIMIT,
        };
        let own = Own { server: Server::new(plan, directory), _names: epmd, _ports: ports };
        let started = Self { port: listener, directory: path, environment: shared.to_vec(), own: Some(own) };
        started.start_again().await;
        started
    }

    /// The server of the test run, which `servers run` started; without one a server of the caller's own.
    ///
    /// Others use it too: it is not killed, paused or set up differently.
    pub async fn shared() -> Self {
        let Ok(url) = std::env::var(RABBITMQ_URL_VARIABLE) else { return Self::start().await };
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{RABBITMQ_URL_VARIABLE}={url} ends with no port"));
        let directory = std::env::var(RABBITMQ_DIRECTORY_VARIABLE);
        let directory = PathBuf::from(directory.expect("TEST_RABBITMQ_DIRECTORY goes with TEST_RABBITMQ_URL"));
        let lines = std::fs::read_to_string(directory.join(CTL_ENVIRONMENT)).expect("the shared RabbitMQ runs");
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { port, directory, environment, own: None }
    }

    /// Gives the URL of a virtual host that nobody else uses.
    pub async fn vhost(&self) -> String {
        let left = std::fs::read_dir(self.directory.join(VHOSTS_LEFT)).into_iter().flatten().flatten();
        // Whoever removes the file has the virtual host: exactly one can.
        let taken = left.into_iter().find(|vhost| std::fs::remove_file(vhost.path()).is_ok());
        if let Some(vhost) = taken {
            return self.url(&vhost.file_name().to_string_lossy());
        }
        let now = UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_nanos();
        let name = format!("own-{}-{now}", std::process::id());
        self.make_vhosts(std::slice::from_ref(&name)).await;
        self.url(&name)
    }

    /// Makes virtual hosts in advance: one alone costs half a second of `rabbitmqctl`, and one of many 15 ms.
    pub async fn prepare_vhosts(&self, count: usize) {
        let names: Vec<String> = (1..=count).map(|number| format!("prepared-{number}")).collect();
        self.make_vhosts(&names).await;
        let folder = self.directory.join(VHOSTS_LEFT);
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| names.iter().try_for_each(|name| File::create(folder.join(name)).map(drop)));
        written.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }

    async fn make_vhosts(&self, names: &[String]) {
        let names: Vec<String> = names.iter().map(|name| format!("<<\"{name}\">>")).collect();
        let made = format!(
            "[begin ok = rabbit_vhost:add(V, <<\"none\">>), ok = rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, V, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"none\">>) end || V <- [{}]], made.",
            names.join(","),
        );
        assert_eq!(self.ctl(&["eval", &made]).await, "made");
    }

    /// The URL of the virtual host, as `guest`.
    pub fn url(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{}", self.port, vhost.replace('/', "%2f"))
    }

    /// The port at 127.0.0.1, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its configuration, its data and its log are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `rabbitmqctl` prints, which takes half a second: `["list_queues", "--vhost", NAME, "name", "messages"]`.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut ctl = self.command(&find("rabbitmqctl", PACKAGE));
        ctl.args(["--quiet"]).args(arguments);
        output(ctl).await
    }

    /// Ends the server, with everything written.
    pub(crate) async fn stop(&self) {
        self.own().end(Signal::TERM).await;
    }

    /// Kills the server, as a crash would. Before that it gets the names of new queues on disk, as it does half a second
    /// later by itself: killed sooner it forgets which files are whose, and the queue has no leader ever after, see
    /// <https://github.com/rabbitmq/rabbitmq-server/issues/15725>.
    pub async fn kill(&self) {
        assert_eq!(self.ctl(&["eval", "lists:usort([dets:sync(T) || T <- dets:all()])."]).await, "[ok]");
        self.own().kill().await;
    }

    /// Starts the killed server with the port and the data that it had, and waits until it serves clients.
    pub async fn start_again(&self) {
        self.own().start(|| answers(self.port)).await;
    }

    /// Starts it again whenever it has ended by itself. Does not return.
    pub(crate) async fn keep(&self) {
        self.own().keep(|| answers(self.port)).await;
    }

    /// Stops the processes where they are: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.own().pause();
    }

    /// Lets the paused processes go on.
    pub fn resume(&self) {
        self.own().resume();
    }

    /// A command that finds the node, as the user that it runs as, since both read one cookie.
    fn command(&self, program: &Path) -> Command {
        let mut command = unprivileged(program, &self.directory, "KILL");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command
    }

    fn own(&self) -> &Server {
        &self.own.as_ref().expect("a shared RabbitMQ is not for one test to stop: use RabbitMq::start").server
    }
}

fn settings(listener: u16) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{listener}\ndisk_free_limit.absolute = 50MB\n\
         log.file = false\nlog.console = true\nlog.console.level = warning\n"
    )
}

fn environment(directory: &Path, distribution: u16, names: [(&'static str, String); 2]) -> Vec<(&'static str, String)> {
    let within = |name: &str| directory.join(name).display().to_string();
    // Two schedulers that do not spin: it starts faster, and idles quietly beside others.
    let erlang = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false";
    let own = [
        ("RABBITMQ_DIST_PORT", distribution.to_string()),
        ("RABBITMQ_MNESIA_BASE", within("mnesia")),
        ("RABBITMQ_LOG_BASE", within("log")),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins")),
        ("RABBITMQ_CONFIG_FILE", within("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang.to_owned()),
        // The script then becomes the server instead of waiting for it, so that a signal reaches the server.
        ("detached", "true".to_owned()),
    ];
    own.into_iter().chain(names).collect()
}

/// Starts the register of Erlang's node names: Erlang would start one that stays for ever.
async fn start_epmd(directory: Directory, (variable, port): (&'static str, String)) -> Server {
    let plan = Plan {
        name: "epmd",
        program: find("epmd", "erlang-base"),
        arguments: Vec::new(),
        environment: vec![(variable, port.clone()), ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned())],
        end: End::Kill,
        ready_limit: READY_LIMIT,
    };
    let server = Server::new(plan, directory);
    server.start(|| async { TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok() }).await;
    server
}

/// Whether the listener, which RabbitMQ opens last, answers the protocol's header with its first frame, a method's.
async fn answers(port: u16) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(b"AMQP\x00\x00\x09\x01").await?;
        connection.read_u8().await
    };
    matches!(ask.await, Ok(1))
}
