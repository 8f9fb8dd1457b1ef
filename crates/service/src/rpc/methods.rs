//! The methods that a server has, read from its descriptors.

use std::collections::{BTreeSet, HashMap};

use prost::Message;
use prost_types::FileDescriptorSet;

/// One method.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// `package.Service/Method`. Lives as long as the process: there are a few dozen, once.
    pub name: &'static str,
    /// Whether its answer has no natural end.
    pub streaming: bool,
}

/// By path, as in `/package.Service/Method`.
#[derive(Debug)]
pub struct Methods(HashMap<String, Method>);

const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

impl Methods {
    /// Those of the named services, of health and of reflection.
    pub fn of(descriptors: &'static [u8], services: &BTreeSet<&'static str>) -> Self {
        let mut methods = HashMap::new();
        let mut add = |name: String, streaming: bool| {
            let method = Method { name: String::leak(name), streaming };
            methods.insert(format!("/{}", method.name), method);
        };
        for encoded in [descriptors, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let set = FileDescriptorSet::decode(encoded).expect("the descriptors were made by the build");
            for file in set.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    if !services.contains(service_name.as_str()) {
                        continue;
                    }
                    for method in &service.method {
                        add(format!("{service_name}/{}", method.name()), method.server_streaming());
                    }
                }
            }
        }
        for name in REFLECTION {
            add(name.to_owned(), true);
        }
        Self(methods)
    }

    /// The method at a path.
    pub fn get(&self, path: &str) -> Option<Method> {
        self.0.get(path).copied()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Method> {
        self.0.values().copied()
    }
}
