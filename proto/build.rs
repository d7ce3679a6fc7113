//! Compiles the contracts with protox (no protoc needed) into Rust and into one descriptor set that keeps our options.

use std::{error::Error, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

const FILES: [&str; 14] = [
    "kontor/options/v1/options.proto",
    "kontor/auth/v1/auth.proto",
    "kontor/auth/v1/internal.proto",
    "kontor/account/v1/account.proto",
    "kontor/account/v1/internal.proto",
    "kontor/account/v1/events.proto",
    "kontor/transfer/v1/transfer.proto",
    "kontor/transfer/v1/accounts.proto",
    "kontor/transfer/v1/schedules.proto",
    "kontor/transfer/v1/admin.proto",
    "kontor/transfer/v1/events.proto",
    "kontor/transfer/v1/internal.proto",
    "kontor/chat/v1/chat.proto",
    "kontor/chat/v1/events.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=kontor");
    println!("cargo:rerun-if-changed=google");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?;
    let encoded = compiler.encode_file_descriptor_set();
    check_options(&DescriptorPool::decode(encoded.as_slice())?)?;
    // Written as protox made it: prost-types would drop our extensions.
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(PathBuf::from(out).join("descriptors.binpb"), encoded)?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".google.api.HttpBody", "crate::http_body::HttpBody")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Every method says who may call it and what it costs, or there is no build.
fn check_options(pool: &DescriptorPool) -> Result<(), Box<dyn Error>> {
    let lacking: Vec<String> = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .flat_map(|method| {
            ["access", "cost"]
                .into_iter()
                .filter(|name| !is_set(pool, &method, name))
                .map(|name| format!("{} lacks the option {name}", method.full_name()))
                .collect::<Vec<_>>()
        })
        .collect();
    if lacking.is_empty() {
        Ok(())
    } else {
        Err(lacking.join("\n").into())
    }
}

fn is_set(pool: &DescriptorPool, method: &MethodDescriptor, option: &str) -> bool {
    let Some(extension) = pool.get_extension_by_name(&format!("kontor.options.v1.{option}")) else {
        return false;
    };
    match &*method.options().get_extension(&extension) {
        Value::U32(cost) => *cost > 0,
        Value::EnumNumber(access) => *access != 0,
        _ => false,
    }
}
