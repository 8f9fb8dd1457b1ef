//! What the images are built from and what Compose runs: exactly the bytes that were looked at, by digest.

use std::collections::BTreeSet;

use crate::{assert_none, members, read, yaml};

const COMPOSE: &str = "docker-compose.yml";
const OWN_IMAGE: &str = "${IMAGE_PREFIX:-localhost/order-system}/";

/// Does `name:tag@sha256:digest` say all three, and is the digest no stopgap?
fn is_pinned(image: &str) -> bool {
    let Some((name, digest)) = image.split_once("@sha256:") else { return false };
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':') && !last.ends_with(":latest"));
    let hexadecimal = digest.len() == 64 && digest.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let digits: BTreeSet<char> = digest.chars().collect();
    tagged && hexadecimal && digits.len() > 4
}

/// The stages of the Dockerfile, and every image or stage that one starts from or copies from, with its line.
fn dockerfile() -> (BTreeSet<String>, Vec<(String, String)>) {
    let text = read("Dockerfile");
    let mut stages = BTreeSet::new();
    let mut sources = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let copied = words.iter().filter_map(|word| word.strip_prefix("--from=").or(word.split("from=").nth(1)));
        for source in copied {
            let source = source.split(',').next().unwrap_or_default();
            sources.push((source.to_owned(), line.to_owned()));
        }
        if let Some(syntax) = line.strip_prefix("# syntax=") {
            sources.push((syntax.to_owned(), line.to_owned()));
        }
        if words.first().is_some_and(|word| word.eq_ignore_ascii_case("FROM")) {
            let source = words[1..].iter().find(|word| !word.starts_with("--")).expect("FROM names an image");
            if !stages.contains(*source) {
                sources.push(((*source).to_owned(), line.to_owned()));
            }
            let named = words.iter().position(|word| word.eq_ignore_ascii_case("AS"));
            stages.extend(named.and_then(|at| words.get(at + 1)).map(|name| (*name).to_owned()));
        }
    }
    (stages, sources)
}

#[test]
fn every_image_is_built_from_what_is_pinned() {
    let (stages, sources) = dockerfile();
    assert!(!sources.is_empty(), "the Dockerfile starts from nothing");
    let unpinned = sources.iter().filter(|(source, _)| !stages.contains(source) && !is_pinned(source));
    let broken: Vec<String> = unpinned.map(|(_, line)| line.clone()).collect();
    assert_none(&broken, "write name:tag@sha256:digest");
}

#[test]
fn compose_runs_what_is_pinned_or_built_here() {
    let compose = yaml(COMPOSE);
    let (stages, _) = dockerfile();
    let services: Vec<_> = members(&compose["services"], "services").collect();
    let mut own = BTreeSet::new();
    let mut broken = Vec::new();
    for (name, service) in &services {
        let Some(build) = service.get("build") else { continue };
        let target = build["target"].as_str().unwrap_or_default();
        let image = service["image"].as_str().unwrap_or_default();
        if !stages.contains(target) || image != format!("{OWN_IMAGE}{target}:${{IMAGE_TAG:-dev}}") {
            broken.push(format!("{name}: {image:?} is built from stage {target:?}"));
        }
        own.insert(image);
    }
    for (name, service) in &services {
        let image = service["image"].as_str().unwrap_or_default();
        if !own.contains(image) && !is_pinned(image) {
            broken.push(format!("{name}: {image:?}"));
        }
    }
    assert!(own.len() >= 4, "the services and the all-in-one are built here: {own:?}");
    assert_none(&broken, "write name:tag@sha256:digest, or build it as localhost/order-system/<stage>");
}

/// So that rustup has nothing to fetch, and people build with what images are built with.
#[test]
fn the_toolchain_of_images_is_that_of_the_repository() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
    let image = format!("rust:{}-", channel.expect("a channel"));
    let (_, sources) = dockerfile();
    assert!(sources.iter().any(|(source, _)| source.starts_with(&image)), "no stage starts from {image}: {sources:?}");
}

/// Each service names its image, because Dependabot does not follow references inside the file.
#[test]
fn one_name_and_tag_is_one_image() {
    let compose = read(COMPOSE);
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    let mut pins: BTreeSet<&str> = images.filter(|image| image.contains("@sha256:")).collect();
    let broken: Vec<String> = compose
        .lines()
        .filter(|line| line.contains("image: &") || line.contains("image: *"))
        .map(str::to_owned)
        .collect();
    assert_none(&broken, "write the image out");
    let all = pins.len();
    let mut names = BTreeSet::new();
    pins.retain(|pin| names.insert(pin.split([':', '@']).next()));
    assert_eq!(pins.len(), all, "two versions of one image");
}

#[test]
fn what_is_published_is_built() {
    let compose = yaml(COMPOSE);
    let justfile = read("Justfile");
    let published = justfile.lines().find_map(|line| line.strip_prefix("published := \"")).expect("published");
    let published = published.trim_end_matches('"');
    let mut broken: Vec<&str> = published.split(' ').collect();
    broken.retain(|name| compose["services"][name]["build"]["target"] != *name);
    assert!(broken.is_empty(), "{COMPOSE} does not build {broken:?}");
    // `scripts/images` keeps the layers of this one alone.
    assert!(published.split(' ').any(|name| name == "standalone"));
}

#[test]
fn a_pin_has_a_tag_and_a_digest() {
    let digest = "0123456789abcdef".repeat(4);
    let stopgap = "0".repeat(64);
    assert!(is_pinned(&format!("gcr.io/distroless/cc-debian13:nonroot@sha256:{digest}")));
    for image in [
        "redis".to_owned(),
        "redis:8".to_owned(),
        format!("redis@sha256:{digest}"),
        format!("localhost:5000/redis@sha256:{digest}"),
        format!("redis:latest@sha256:{digest}"),
        format!("redis:8@sha256:{}", &digest[1..]),
        format!("redis:8@sha256:{stopgap}"),
    ] {
        assert!(!is_pinned(&image), "{image}");
    }
}
