//! The contracts of kontor as Rust: messages, clients and servers generated from `proto/kontor`, and the
//! [descriptors] with the options that the generated code cannot show.
#![warn(missing_docs)]

pub mod http_body;
pub mod method;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// The encoded `FileDescriptorSet` of all contracts and their imports, options of our own included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "the set is made by the build script, which decodes it too"
    )]
    DescriptorPool::decode(DESCRIPTOR_SET).expect("the descriptor set of this build decodes")
});

/// All contracts, to look up methods, messages and options by name.
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}

macro_rules! contracts {
    ($($service:ident = $package:literal),+ $(,)?) => {$(
        #[doc = concat!("`", $package, "`")]
        pub mod $service {
            #[doc = concat!("`", $package, "`")]
            #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    )+};
}

contracts! {
    auth = "kontor.auth.v1",
    account = "kontor.account.v1",
    transfer = "kontor.transfer.v1",
    chat = "kontor.chat.v1",
}
