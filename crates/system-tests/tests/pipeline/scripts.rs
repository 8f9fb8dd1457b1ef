//! What `scripts/images` and `scripts/publish` ask of an engine, told by a stand-in for it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::root;

/// Notes each call. An archive is a list of `image architecture revision`, and what is loaded stays, as in an engine.
const ENGINE: &str = r#"
echo "$*" >>calls
case "$*" in
"load --quiet --input "*) cat "$4" >>loaded ;;
"image inspect --format "*)
    for image; do :; done
    found=$(grep "^$image " loaded | tail -n 1)
    test -n "$found"
    case "$4" in *Labels*) echo "${found#* }" ;; *) echo "$found" | cut -d ' ' -f 2 ;; esac ;;
"push "*) test ! -e push-fails ;;
"buildx imagetools inspect "*) cat digest ;;
"tag "* | "buildx imagetools create "* | "save --output "* | "buildx bake "* | "--profile "*) ;;
*) exit 99 ;;
esac
"#;

/// A repository with the two scripts, and the engine.
struct Bench {
    folder: TempDir,
    revision: String,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let path = folder.path();
        for made in ["scripts", "target/images"] {
            fs::create_dir_all(path.join(made)).expect("a folder");
        }
        for script in ["images", "publish"] {
            let script = Path::new("scripts").join(script);
            fs::copy(root().join(&script), path.join(&script)).expect("the script is there");
        }
        let bench = Self { revision: String::new(), folder };
        bench.write("engine", &format!("set -e{ENGINE}"));
        bench.write("digest", &format!("sha256:{}\n", "0123456789abcdef".repeat(4)));
        bench.write("loaded", "");
        bench.write("Cargo.toml", "[workspace.package]\nversion = \"1.2.3\"\n");
        bench.write(".gitignore", "/calls\n/digest\n/loaded\n/push-fails\n/target/\n");
        bench.git(&["init", "--quiet"]);
        bench.git(&["add", "."]);
        bench.git(&["commit", "--quiet", "--message", "All"]);
        let revision = bench.git(&["rev-parse", "HEAD"]);
        let bench = Self { revision, ..bench };
        for architecture in ["amd64", "arm64"] {
            bench.archive(architecture, &[("edge", architecture, &bench.revision), ("load", architecture, "-")]);
        }
        bench
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.folder.path().join(path), text).expect("the file is written");
    }

    fn archive(&self, architecture: &str, images: &[(&str, &str, &str)]) {
        let lines =
            images.iter().map(|(name, of, revision)| format!("localhost/order-system/{name}:dev {of} {revision}\n"));
        self.write(&format!("target/images/{architecture}.tar"), &lines.collect::<String>());
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Nobody").env(format!("GIT_{role}_EMAIL"), "nobody@example.org");
        }
        command
    }

    fn git(&self, arguments: &[&str]) -> String {
        let out = self.command("git").args(arguments).output().expect("git runs");
        assert!(out.status.success(), "git {arguments:?}: {out:?}");
        String::from_utf8(out.stdout).expect("UTF-8").trim().to_owned()
    }

    fn script(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = self.command("sh");
        for unset in ["GITHUB_REF", "IMAGE_CACHE", "COMPOSE"] {
            command.env_remove(unset);
        }
        let engine = [("DOCKER", "sh engine"), ("COMPOSE", "sh engine")];
        command.args(arguments).envs(engine).envs(environment.iter().copied());
        command.output().expect("sh runs")
    }

    /// Publishes `edge` from this reference: the exit code, and the calls of the engine.
    fn publish(&self, reference: &str) -> (Output, Vec<String>) {
        let environment =
            [("GITHUB_REF", reference), ("GITHUB_REPOSITORY", "Owner/Shop"), ("DOCKER_HUB_USERNAME", "someone")];
        let out = self.script(&["scripts/publish", "edge"], &environment);
        (out, self.calls())
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Publishing is refused with this message, and nothing has left.
    fn refuses(&self, reference: &str, message: &str) {
        let (out, calls) = self.publish(reference);
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && error.contains(message), "{reference}: {error} is to say `{message}`");
        let left: Vec<_> = calls.iter().filter(|call| call.starts_with("push") || call.contains("create")).collect();
        assert!(left.is_empty(), "{reference}: {left:?}");
    }

    /// Publishing succeeds; these are the manifest lists' tags, and that from which they are made.
    fn publishes(&self, reference: &str, tags: &[&str], exact: &str) {
        let (out, calls) = self.publish(reference);
        assert!(out.status.success(), "{reference}: {}", String::from_utf8_lossy(&out.stderr));
        let names = ["docker.io/someone/order-system-edge", "ghcr.io/owner/shop/edge"];
        let pushed: Vec<_> = calls.iter().filter(|call| call.starts_with("push")).cloned().collect();
        let each = |name: &&str| ["amd64", "arm64"].map(|of| format!("push --quiet {name}:{exact}-{of}"));
        assert_eq!(pushed, names.iter().flat_map(each).collect::<Vec<_>>(), "{reference}");
        let created: Vec<_> = calls.iter().filter(|call| call.contains("create")).cloned().collect();
        let made = |name: &&str| {
            let tags: Vec<String> = tags.iter().map(|tag| format!("--tag {name}:{tag}")).collect();
            format!("buildx imagetools create {} {name}:{exact}-amd64 {name}:{exact}-arm64", tags.join(" "))
        };
        assert_eq!(created, names.iter().map(made).collect::<Vec<_>>(), "{reference}");
        // Each is tagged while it is what the name stands for, which the second archive changes.
        let order: Vec<_> = calls.iter().filter_map(|call| call.split(' ').next()).take(8).collect();
        assert_eq!(order, ["load", "image", "tag", "tag", "load", "image", "tag", "tag"], "{reference}");
        let subjects = fs::read_to_string(self.folder.path().join("target/images/published.txt"));
        let digest = "0123456789abcdef".repeat(4);
        let subject = |name: &&str| format!("{digest}  {name}\n");
        assert_eq!(subjects.expect("published.txt"), names.iter().map(subject).collect::<String>());
    }
}

#[test]
fn main_is_published_as_main_and_as_its_commit() {
    let bench = Bench::new();
    let exact = format!("sha-{}", &bench.revision[..12]);
    bench.publishes("refs/heads/main", &[&exact, "main"], &exact);
}

#[test]
fn a_release_is_published_as_its_version_its_minor_version_and_the_latest() {
    let bench = Bench::new();
    for tag in ["v1.2.3", "v1.2.2", "v1.10.0-rc1", "v0.99.99", "nightly"] {
        bench.git(&["tag", tag]);
    }
    bench.publishes("refs/tags/v1.2.3", &["1.2.3", "1.2", "latest"], "1.2.3");
}

#[test]
fn a_release_takes_no_tag_from_a_newer_one() {
    let bench = Bench::new();
    for tag in ["v1.2.3", "v1.10.0"] {
        bench.git(&["tag", tag]);
    }
    bench.publishes("refs/tags/v1.2.3", &["1.2.3", "1.2"], "1.2.3");
    let bench = Bench::new();
    for tag in ["v1.2.3", "v1.2.20"] {
        bench.git(&["tag", tag]);
    }
    bench.publishes("refs/tags/v1.2.3", &["1.2.3"], "1.2.3");
}

#[test]
fn a_release_before_the_release_is_published_as_itself_alone() {
    let bench = Bench::new();
    bench.write("Cargo.toml", "version = \"1.2.3-rc1\"\n");
    bench.git(&["tag", "v1.2.3-rc1"]);
    bench.publishes("refs/tags/v1.2.3-rc1", &["1.2.3-rc1"], "1.2.3-rc1");
}

#[test]
fn nothing_is_published_from_elsewhere() {
    let bench = Bench::new();
    bench.git(&["tag", "v1.2.3"]);
    for reference in ["refs/heads/topic", "refs/pull/1/merge", "refs/tags/nightly", "main"] {
        bench.refuses(reference, "nothing is published from");
    }
    for reference in ["refs/tags/v1.2", "refs/tags/vnext", "refs/tags/v1.2.3+4", "refs/tags/v1.2.3-a/b"] {
        bench.refuses(reference, "is no version");
    }
    bench.refuses("", "GITHUB_REF is not set");
}

#[test]
fn a_release_is_of_the_tagged_commit_and_of_the_version_that_the_code_says() {
    let bench = Bench::new();
    bench.refuses("refs/tags/v1.2.3", "v1.2.3 is not the commit");
    bench.git(&["tag", "v1.2.4"]);
    bench.refuses("refs/tags/v1.2.4", "the tag says 1.2.4, Cargo.toml says 1.2.3");
    bench.git(&["tag", "v1.2.3"]);
    bench.git(&["commit", "--quiet", "--allow-empty", "--message", "Later"]);
    bench.refuses("refs/tags/v1.2.3", "v1.2.3 is not the commit");
    bench.write(".git/shallow", &format!("{}\n", bench.git(&["rev-parse", "HEAD"])));
    bench.refuses("refs/tags/v1.2.3", "a shallow clone");
}

#[test]
fn nothing_leaves_unless_every_image_of_every_architecture_is_there_and_of_this_commit() {
    let bench = Bench::new();
    let revision = bench.revision.clone();
    let main = "refs/heads/main";
    bench.archive("arm64", &[("load", "arm64", &revision)]);
    bench.refuses(main, "edge:dev of arm64.tar is 'amd64");
    bench.archive("arm64", &[("edge", "amd64", &revision)]);
    bench.refuses(main, "edge:dev of arm64.tar is 'amd64");
    bench.archive("arm64", &[("edge", "arm64", &format!("{revision}-dirty"))]);
    bench.refuses(main, &format!("'arm64 {revision}-dirty', not 'arm64 {revision}'"));
    bench.archive("arm64", &[]);
    bench.refuses(main, "target/images/arm64.tar is missing");
    fs::remove_file(bench.folder.path().join("target/images/amd64.tar")).expect("it was there");
    bench.refuses(main, "target/images/amd64.tar is missing");

    let bench = Bench::new();
    bench.archive("amd64", &[("load", "amd64", &revision)]);
    bench.refuses(main, "amd64.tar has no localhost/order-system/edge:dev");
}

#[test]
fn a_failed_push_moves_no_tag_and_a_missing_digest_is_told() {
    let bench = Bench::new();
    bench.write("push-fails", "");
    let (out, calls) = bench.publish("refs/heads/main");
    assert!(!out.status.success() && calls.iter().all(|call| !call.contains("create")), "{calls:?}");

    let bench = Bench::new();
    bench.write("digest", "<no value>\n");
    let (out, _) = bench.publish("refs/heads/main");
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && error.contains("has no digest"), "{error}");
}

#[test]
fn images_of_one_architecture_are_saved_under_its_name() {
    let bench = Bench::new();
    bench.write("loaded", "localhost/order-system/edge:dev arm64 -\nlocalhost/order-system/load:dev arm64 -\n");
    assert!(bench.script(&["scripts/images", "save", "edge", "load"], &[]).status.success());
    let saved = "save --output target/images/arm64.tar localhost/order-system/edge:dev localhost/order-system/load:dev";
    assert_eq!(bench.calls().last().map(String::as_str), Some(saved));

    bench.write("loaded", "localhost/order-system/edge:dev arm64 -\nlocalhost/order-system/load:dev amd64 -\n");
    assert!(!bench.script(&["scripts/images", "save", "edge", "load"], &[]).status.success());
    assert!(!bench.script(&["scripts/images", "save", "absent"], &[]).status.success());
    assert!(!bench.script(&["scripts/images", "save"], &[]).status.success());
}

#[test]
fn builds_take_layers_from_the_cache_or_fill_it() {
    let bench = Bench::new();
    assert!(bench.script(&["scripts/images", "build"], &[]).status.success());
    let cache = [("IMAGE_CACHE", "target/cache")];
    assert!(bench.script(&["scripts/images", "build"], &cache).status.success());
    fs::create_dir(bench.folder.path().join("target/cache")).expect("a folder");
    bench.write("target/cache/index.json", "{}");
    assert!(bench.script(&["scripts/images", "build"], &cache).status.success());
    let bake = "buildx bake --file docker-compose.yml --load --set";
    let expected = [
        "--profile * build".to_owned(),
        format!("{bake} standalone.cache-to=type=local,dest=target/cache,mode=max"),
        format!("{bake} *.cache-from=type=local,src=target/cache"),
    ];
    assert_eq!(bench.calls(), expected);
}
