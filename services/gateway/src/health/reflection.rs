//! gRPC reflection over the public part of the contracts: `grpcurl list` shows nothing that cannot be called.

use std::collections::BTreeMap;

use bytes::{BufMut as _, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{FileDescriptor, ServiceDescriptor};
use proto::method::Access;
use tonic::service::Routes;
pub(crate) use tonic_reflection::server::Error;

/// The services with methods for callers outside, and the names under which health is told.
pub(crate) fn public_services() -> Vec<String> {
    proto::descriptors()
        .services()
        .filter(is_public)
        .map(|service| service.full_name().to_owned())
        .collect()
}

fn is_public(service: &ServiceDescriptor) -> bool {
    let accesses: Vec<Access> = service
        .methods()
        .filter_map(|method| proto::method::by_path(&format!("/{}/{}", service.full_name(), method.name())))
        .map(|method| method.access)
        .collect();
    !accesses.is_empty() && !accesses.contains(&Access::Internal)
}

/// Adds reflection, v1 and v1alpha.
pub(crate) fn add(routes: Routes, services: &[String]) -> Result<Routes, Error> {
    let public = public_files();
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(&public)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // so that a client which knows the contracts by reflection alone can read the details of errors
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        services
            .iter()
            .fold(builder, tonic_reflection::server::Builder::with_service_name)
    };
    let v1 = builder()
        .with_service_name("grpc.reflection.v1.ServerReflection")
        .build_v1()?;
    let v1alpha = builder()
        .with_service_name("grpc.reflection.v1alpha.ServerReflection")
        .build_v1alpha()?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// An encoded `FileDescriptorSet` of the files with public services and of what they import, options and comments included.
/// A file that also has an internal service is left out whole: a contract keeps those apart.
fn public_files() -> Vec<u8> {
    let mut files = BTreeMap::new();
    for file in proto::descriptors().files() {
        let services: Vec<ServiceDescriptor> = file.services().collect();
        if !services.is_empty() && services.iter().all(is_public) {
            collect(file, &mut files);
        }
    }
    let mut set = BytesMut::new();
    for file in files.values() {
        // `repeated FileDescriptorProto file = 1`, written by hand: decoding would drop our options
        let encoded = file.encode_to_vec();
        encode_key(1, WireType::LengthDelimited, &mut set);
        encode_varint(encoded.len() as u64, &mut set);
        set.put_slice(&encoded);
    }
    set.to_vec()
}

fn collect(file: FileDescriptor, files: &mut BTreeMap<String, FileDescriptor>) {
    if files.contains_key(file.name()) {
        return;
    }
    let imports: Vec<FileDescriptor> = file.dependencies().collect();
    files.insert(file.name().to_owned(), file);
    for import in imports {
        collect(import, files);
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn internal_services_are_not_shown() {
        let shown = DescriptorPool::decode(public_files().as_slice()).unwrap();
        let names: Vec<String> = shown
            .services()
            .map(|service| service.full_name().to_owned())
            .collect();
        assert!(names.len() >= 4, "{names:?}");
        assert_eq!(public_services().len(), names.len());
        for method in proto::method::all() {
            let service = method.descriptor.parent_service();
            let public = method.access != Access::Internal;
            assert_eq!(
                shown.get_service_by_name(service.full_name()).is_some(),
                public,
                "{}",
                method.path
            );
        }
    }

    #[test]
    fn comments_and_options_are_shown() {
        let encoded = public_files();
        let shown = DescriptorPool::decode(encoded.as_slice()).unwrap();
        let file = shown.get_file_by_name("kontor/auth/v1/auth.proto").unwrap();
        assert!(file.file_descriptor_proto().source_code_info.is_some());
        let extension = shown.get_extension_by_name("google.api.http").unwrap();
        let login = shown
            .get_service_by_name("kontor.auth.v1.AuthService")
            .unwrap()
            .methods()
            .next()
            .unwrap();
        assert!(login.options().has_extension(&extension));
    }
}
