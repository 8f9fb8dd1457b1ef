//! Unpacks the files of Swagger UI that `/docs` serves. They come with a crate, so that nothing is downloaded.

use std::{collections::BTreeMap, env, error::Error, fs, path::Path};

use miniz_oxide::inflate::decompress_to_vec;
use rawzip::{CompressionMethod, ZipArchive};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

const FILES: [&str; 3] = ["favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    let archive = ZipArchive::from_slice(SWAGGER_UI_VENDORED)?;
    let mut missing: BTreeMap<_, _> = FILES.iter().map(|file| (format!("/dist/{file}"), *file)).collect();
    for entry in archive.entries() {
        let entry = entry?;
        // The archive is the source of one version, in a folder named after it.
        let path = std::str::from_utf8(entry.file_path().as_ref())?.to_owned();
        let Some(file) = path.find('/').and_then(|at| missing.remove(&path[at..])) else { continue };
        let data = archive.get_entry(entry.wayfinder())?.data();
        let bytes = match entry.compression_method() {
            CompressionMethod::Store => data.to_vec(),
            CompressionMethod::Deflate => decompress_to_vec(data).map_err(|e| e.to_string())?,
            other => return Err(format!("{path} is compressed by {other:?}").into()),
        };
        fs::write(Path::new(&out).join(file), bytes)?;
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("the archive lacks {missing:?}").into()) }
}
