//! Generates the gRPC code from `proto/` with a compiler written in Rust: no protoc is needed.

use std::{env, fs, path::Path};

const PROTOS: [&str; 3] =
    ["inventory/v1/inventory_service.proto", "orders/v1/ledger_service.proto", "orders/v1/order_service.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("descriptors.binpb"), protox::prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
