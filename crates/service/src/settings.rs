//! Reads settings from environment variables and collects every bad one, so that the operator sees them all at once.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt::{self, Display},
    fs,
    net::SocketAddr,
    str::FromStr,
};

use http::Uri;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Exit code of a process whose settings are bad (`EX_CONFIG` of sysexits.h).
pub const EXIT_BAD_SETTINGS: u8 = 78;
/// Largest secret file that is read, in bytes.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A reader of settings. It answers something usable for a bad value, and [`Settings::finish`] tells what was bad.
#[derive(Debug)]
pub struct Settings {
    values: HashMap<String, OsString>,
    bad: Vec<(String, String)>,
}

/// How it is set where a server is: by a URL, which is a secret, or by its parts.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// What people call it.
    pub name: &'static str,
    /// The setting of its URL.
    pub url: &'static str,
    /// The scheme of a URL made of parts.
    pub scheme: &'static str,
    /// The setting of its host, without which no other part counts.
    pub host: &'static str,
    /// The setting of its port, and the usual one.
    pub port: (&'static str, u16),
    /// How to sign in, when parts say it.
    pub login: Option<LoginSettings>,
    /// The setting of the database's name; unset, it is the user's.
    pub database: Option<&'static str>,
}

/// How to sign in to a server.
#[derive(Debug, Clone, Copy)]
pub struct LoginSettings {
    /// The setting of the user, and the usual one; empty where it is usual to have none. Then a user needs a password.
    pub user: (&'static str, &'static str),
    /// The setting of the password, a secret.
    pub password: &'static str,
}

/// Every setting that is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSettings(Vec<(String, String)>);

impl Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, why)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{name}: {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BadSettings {}

impl Settings {
    /// Of this process's environment.
    pub fn from_env() -> Self {
        // A name that is no text cannot be one of ours.
        let values = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self { values: values.collect(), bad: Vec::new() }
    }

    /// Of these names and values.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        Self { values: values.collect(), bad: Vec::new() }
    }

    /// A plain value. Empty counts as unset.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let value = self.values.get(name).filter(|value| !value.is_empty())?;
        if let Some(text) = value.to_str() {
            return Some(text.to_owned());
        }
        self.bad(name, "is not UTF-8");
        None
    }

    /// A value that must not be seen: `NAME`, or the content of the file named by `NAME_FILE` without its last line
    /// break. Both at once is bad, because one of them would be ignored silently.
    pub fn secret(&mut self, name: &str) -> Option<String> {
        let file_name = format!("{name}_FILE");
        match (self.text(name), self.text(&file_name)) {
            (value, None) => value,
            (None, Some(path)) => match read_secret(&path) {
                Ok(secret) => Some(secret),
                Err(why) => {
                    self.bad(&file_name, why);
                    None
                }
            },
            (Some(_), Some(_)) => {
                self.bad(name, format!("is set together with {file_name}; set one of them"));
                None
            }
        }
    }

    /// A value of some type; `default` when it is unset or bad.
    pub fn parsed<T: FromStr>(&mut self, name: &str, default: T) -> T
    where
        T::Err: Display,
    {
        let Some(text) = self.text(name) else { return default };
        match text.trim().parse() {
            Ok(value) => value,
            Err(e) => {
                self.bad(name, e.to_string());
                default
            }
        }
    }

    /// An address to listen on, as in `127.0.0.1:8080`. `default` must be one.
    pub fn addr(&mut self, name: &str, default: &str) -> SocketAddr {
        let default = default.parse().expect("the default is written in the program");
        let Some(text) = self.text(name) else { return default };
        text.trim().parse().unwrap_or_else(|_| {
            self.bad(name, "must be an IP address and a port, as in 127.0.0.1:8080");
            default
        })
    }

    /// Comma-separated URLs of gRPC peers, as in `http://a:50051,http://b:50051`. Only `http`: peers are reached inside
    /// one trusted network, and no TLS is built in.
    pub fn urls(&mut self, name: &str) -> Option<Vec<Uri>> {
        let text = self.text(name)?;
        let urls: Option<Vec<Uri>> = text.split(',').map(|url| peer_url(url.trim())).collect();
        if urls.is_none() {
            self.bad(name, "must be comma-separated URLs with a host and no path, as in http://127.0.0.1:50051");
        }
        urls
    }

    /// Records that a setting is bad, and why. The reason must not repeat a secret.
    pub fn bad(&mut self, name: &str, why: impl Into<String>) {
        let bad = (name.to_owned(), why.into());
        // Two parts of a process may read the same setting.
        if !self.bad.contains(&bad) {
            self.bad.push(bad);
        }
    }

    /// Where a server is, as `parse` understands it; `None` when it is not set.
    pub fn server<T, E: Display>(
        &mut self,
        server: &ServerSettings,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (name, url) = match (self.secret(server.url), self.text(server.host)) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.bad(server.url, format!("is set together with {}; set one of them", server.host));
                return None;
            }
            (Some(url), None) => (server.url, url),
            (None, Some(host)) => (server.host, self.url_of_parts(server, host.trim())),
        };
        parse(&url).map_err(|why| self.bad(name, why.to_string())).ok()
    }

    /// The same for a process that cannot do without.
    pub fn server_required<T, E: Display>(
        &mut self,
        server: &ServerSettings,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let bad_before = self.bad.len();
        let found = self.server(server, parse);
        if found.is_none() && self.bad.len() == bad_before {
            self.bad(server.url, format!("is required, or {}: where {} is", server.host, server.name));
        }
        found
    }

    fn url_of_parts(&mut self, server: &ServerSettings, host: &str) -> String {
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let (port_name, port_default) = server.port;
        let port = self.parsed(port_name, port_default);
        let Some(login) = &server.login else { return format!("{}://{host}:{port}", server.scheme) };
        let (user_name, user_default) = login.user;
        let user = self.text(user_name).unwrap_or_else(|| user_default.to_owned());
        let bad_before = self.bad.len();
        let password = self.secret(login.password);
        if user_default.is_empty() && !user.is_empty() && password.is_none() && self.bad.len() == bad_before {
            self.bad(user_name, format!("is set without {}", login.password));
        }
        let password = password.map_or_else(String::new, |password| format!(":{}", escaped(&password)));
        let database = server.database.map(|name| self.text(name).unwrap_or_else(|| user.clone()));
        let path = database.map_or_else(String::new, |database| format!("/{}", escaped(&database)));
        let login = format!("{}{password}", escaped(&user));
        let at = if login.is_empty() { "" } else { "@" };
        format!("{}://{login}{at}{host}:{port}{path}", server.scheme)
    }

    /// Records that a setting is missing, if it is. `what` says what it is for.
    pub fn required(&mut self, name: &str, what: &str) {
        if self.text(name).is_none() {
            self.bad(name, format!("is required: {what}"));
        }
    }

    /// An error when any setting was bad.
    pub fn finish(self) -> Result<(), BadSettings> {
        if self.bad.is_empty() { Ok(()) } else { Err(BadSettings(self.bad)) }
    }

    /// The same, with something that is there unless a setting was bad.
    pub fn finish_with<T>(self, value: Option<T>) -> Result<T, BadSettings> {
        self.finish().map(|()| value.expect("what is missing was recorded as bad"))
    }
}

/// As a part of a URL.
fn escaped(text: &str) -> impl Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

fn peer_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let plain = url.scheme_str() == Some("http") && url.path() == "/" && url.query().is_none();
    let host = url.authority().is_some_and(|authority| !authority.host().is_empty());
    (plain && host).then_some(url)
}

fn read_secret(path: &str) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?.len();
    if size > SECRET_FILE_BYTES_MAX {
        return Err(format!("names a file of more than {SECRET_FILE_BYTES_MAX} bytes"));
    }
    let secret = fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    let secret = secret.strip_suffix('\n').map_or(secret.as_str(), |s| s.strip_suffix('\r').unwrap_or(s));
    if secret.is_empty() { Err("names an empty file".to_owned()) } else { Ok(secret.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(settings: Settings) -> String {
        settings.finish().expect_err("something is bad").to_string()
    }

    #[test]
    fn every_bad_setting_is_told_at_once() {
        let mut settings =
            Settings::from_pairs([("COUNT", "many"), ("ADDR", "nowhere"), ("URL", "amqp://x"), ("GOOD", "3")]);
        assert_eq!(settings.parsed("COUNT", 7_u32), 7);
        assert_eq!(settings.parsed("GOOD", 7_u32), 3);
        assert_eq!(settings.addr("ADDR", "127.0.0.1:1"), ([127, 0, 0, 1], 1).into());
        assert!(settings.urls("URL").is_none());
        settings.bad("DB_URL", "is not set");
        let text = complaints(settings);
        assert_eq!(text.lines().count(), 4, "{text}");
        for name in ["COUNT: ", "ADDR: ", "URL: ", "DB_URL: is not set"] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
        }
    }

    #[test]
    fn empty_counts_as_unset() {
        let mut settings = Settings::from_pairs([("A", ""), ("B", ""), ("B_FILE", "")]);
        assert_eq!(settings.text("A"), None);
        assert_eq!(settings.secret("B"), None);
        assert_eq!(settings.parsed("A", 5), 5);
        assert_eq!(settings.finish(), Ok(()));
    }

    #[test]
    fn a_secret_comes_from_its_file_without_the_line_break() {
        let dir = tempfile::tempdir().expect("a folder");
        for (content, secret) in
            [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("a\nb\r\n", "a\nb"), ("a \n\n", "a \n")]
        {
            let path = dir.path().join("secret");
            fs::write(&path, content).expect("written");
            let mut settings = Settings::from_pairs([("P_FILE", path.to_str().expect("UTF-8"))]);
            assert_eq!(settings.secret("P").as_deref(), Some(secret));
            assert_eq!(settings.finish(), Ok(()));
        }
    }

    #[test]
    fn a_secret_given_twice_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        fs::write(&path, "hunter2").expect("written");
        let mut settings = Settings::from_pairs([("P", "hunter3"), ("P_FILE", path.to_str().expect("UTF-8"))]);
        assert_eq!(settings.secret("P"), None);
        let text = complaints(settings);
        assert!(text.contains("P_FILE") && !text.contains("hunter"), "{text}");
    }

    #[test]
    fn a_secret_file_that_cannot_be_read_is_a_bad_setting() {
        let dir = tempfile::tempdir().expect("a folder");
        let (empty, large) = (dir.path().join("empty"), dir.path().join("large"));
        fs::write(&empty, "\n").expect("written");
        fs::write(&large, vec![b'a'; 64 * 1024 + 1]).expect("written");
        for path in [dir.path(), &dir.path().join("missing"), &empty, &large] {
            let mut settings = Settings::from_pairs([("P_FILE", path.to_str().expect("UTF-8"))]);
            assert_eq!(settings.secret("P"), None);
            assert!(complaints(settings).starts_with("P_FILE: "), "{}", path.display());
        }
    }

    const DATABASE: ServerSettings = ServerSettings {
        name: "the database",
        url: "D_URL",
        scheme: "db",
        host: "D_HOST",
        port: ("D_PORT", 5),
        login: Some(LoginSettings { user: ("D_USER", "admin"), password: "D_PASSWORD" }),
        database: Some("D_DB"),
    };

    fn url(pairs: &[(&str, &str)]) -> Result<Option<String>, String> {
        let mut settings = Settings::from_pairs(pairs.iter().copied());
        let parse = |url: &str| if url.contains("bad") { Err("is no such URL") } else { Ok(url.to_owned()) };
        let url = settings.server(&DATABASE, parse);
        settings.finish().map(|()| url).map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_server_is_set_by_a_url_or_by_parts() {
        assert_eq!(url(&[("D_USER", "somebody"), ("D_PASSWORD", "x")]), Ok(None));
        assert_eq!(url(&[("D_URL", "db://x")]), Ok(Some("db://x".to_owned())));
        assert_eq!(url(&[("D_HOST", "h")]), Ok(Some("db://admin@h:5/admin".to_owned())));
        let all = [("D_HOST", "::1"), ("D_PORT", "7"), ("D_USER", "a b"), ("D_PASSWORD", "p@:/é"), ("D_DB", "o/o")];
        assert_eq!(url(&all), Ok(Some("db://a%20b:p%40%3A%2F%C3%A9@[::1]:7/o%2Fo".to_owned())));
    }

    #[test]
    fn where_no_user_is_usual_there_may_be_a_password_alone_but_no_user_alone() {
        let login = LoginSettings { user: ("D_USER", ""), password: "D_PASSWORD" };
        let server = ServerSettings { login: Some(login), database: None, ..DATABASE };
        let url = |pairs: &[(&str, &str)]| {
            let mut settings = Settings::from_pairs([&[("D_HOST", "h")], pairs].concat());
            let url = settings.server(&server, |url| Ok::<_, String>(url.to_owned()));
            settings.finish().map(|()| url.expect("it is set")).map_err(|bad| bad.to_string())
        };
        assert_eq!(url(&[]).as_deref(), Ok("db://h:5"));
        assert_eq!(url(&[("D_PASSWORD", "p:w")]).as_deref(), Ok("db://:p%3Aw@h:5"));
        assert_eq!(url(&[("D_USER", "a b"), ("D_PASSWORD", "p@")]).as_deref(), Ok("db://a%20b:p%40@h:5"));
        assert_eq!(url(&[("D_USER", "u")]), Err("D_USER: is set without D_PASSWORD".to_owned()));
        let unreadable = url(&[("D_USER", "u"), ("D_PASSWORD_FILE", "/none")]).expect_err("there is no such file");
        assert!(unreadable.starts_with("D_PASSWORD_FILE: ") && unreadable.lines().count() == 1, "{unreadable}");
    }

    #[test]
    fn a_server_set_badly_is_told_without_its_secrets() {
        assert_eq!(url(&[("D_URL", "bad:hunter2")]), Err("D_URL: is no such URL".to_owned()));
        assert_eq!(url(&[("D_HOST", "bad")]), Err("D_HOST: is no such URL".to_owned()));
        let both = url(&[("D_URL", "db://x"), ("D_HOST", "h")]);
        assert_eq!(both, Err("D_URL: is set together with D_HOST; set one of them".to_owned()));
        assert!(url(&[("D_HOST", "h"), ("D_PORT", "many")]).is_err_and(|bad| bad.starts_with("D_PORT: ")));
        let mut settings = Settings::from_pairs([]);
        assert_eq!(settings.server_required(&DATABASE, |_| Ok::<_, String>(())), None);
        assert_eq!(complaints(settings), "D_URL: is required, or D_HOST: where the database is");
    }

    #[test]
    fn peers_are_plain_urls() {
        let mut settings = Settings::from_pairs([("GOOD", "http://a:1, http://[::1]:2/")]);
        let urls = settings.urls("GOOD").expect("good");
        assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://a:1/", "http://[::1]:2/"]);
        assert_eq!(settings.urls("UNSET"), None);
        assert_eq!(settings.finish(), Ok(()));
        for bad in ["a:1", "https://a:1", "http://a:1/path", "http://a:1?q", "http://a:1,", ",", "http://"] {
            let mut settings = Settings::from_pairs([("BAD", bad)]);
            assert_eq!(settings.urls("BAD"), None, "{bad}");
            assert!(complaints(settings).starts_with("BAD: "));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_is_bad() {
        use std::os::unix::ffi::OsStringExt;
        let values = HashMap::from([("A".to_owned(), OsString::from_vec(vec![0xff]))]);
        let mut settings = Settings { values, bad: Vec::new() };
        assert_eq!(settings.text("A"), None);
        assert_eq!(complaints(settings), "A: is not UTF-8");
    }
}
