// SPDX-License-Identifier: Apache-2.0
//! One attachment as the chains of plugins need it, and the form in which it is kept.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::capability::runtime_config;
use super::conf::{NetworkList, Object, Plugin, is_name};
use super::invoke::{Call, Container, Deadline, Verb};
use crate::{AttachRequest, Attachment, Error, Result};

/// Who an attachment is: never twice at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) network: String,
    pub(super) container: String,
    pub(super) interface: String,
}

/// [`Attachment::data`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    /// The network list's bytes in base64.
    config: String,
    cni_args: Vec<(String, String)>,
    capability_args: Map<String, Value>,
}

/// An attachment, decoded.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: Key,
    pub(super) list: NetworkList,
    pub(super) netns: PathBuf,
    pub(super) args: Vec<(String, String)>,
    pub(super) capability_args: Map<String, Value>,
}

// === impl Data ===

impl Data {
    pub(super) fn new(
        list: &NetworkList,
        args: Vec<(String, String)>,
        capability_args: Map<String, Value>,
    ) -> Self {
        Self { config: STANDARD.encode(&list.bytes), cni_args: args, capability_args }
    }
}

// === impl Target ===

impl Target {
    /// Reads an attachment back.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that this backend did not make.
    pub(super) fn of(attachment: &Attachment) -> Result<Self> {
        let invalid =
            |problem: String| Error::Invalid(format!("attachment of {}: {problem}", attachment.sandbox_id));
        let data = Data::deserialize(&attachment.data).map_err(|e| invalid(e.to_string()))?;
        Self::new(
            Key::of(attachment),
            &data.config,
            attachment.netns.clone(),
            data.cni_args,
            data.capability_args,
        )
        .map_err(invalid)
    }

    /// `config`: the network list's bytes in base64.
    pub(super) fn new(
        key: Key,
        config: &str,
        netns: PathBuf,
        args: Vec<(String, String)>,
        capability_args: Map<String, Value>,
    ) -> std::result::Result<Self, String> {
        let bytes = STANDARD.decode(config).map_err(|e| format!("its configuration: {e}"))?;
        let source = format!("the recorded configuration of network {}", key.network);
        let list = NetworkList::parse(&bytes, &source).map_err(|e| format!("{source}: {e}"))?;
        // They name a file and go into an environment.
        if list.name != key.network || !is_name(&key.container) || !is_interface(&key.interface) {
            return Err(format!("{key:?} is not an attachment to network {}", list.name));
        }
        Ok(Self { key, list, netns, args, capability_args })
    }

    /// The configuration as it is recorded.
    pub(super) fn config(&self) -> String {
        STANDARD.encode(&self.list.bytes)
    }

    /// `K=V;K=V`.
    pub(super) fn arguments(&self) -> String {
        let pairs: Vec<String> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }

    /// The namespace's path if there still is a namespace, else nothing: plugins must release what
    /// they hold elsewhere all the same (CNI spec, "DEL").
    pub(super) fn living_netns(&self) -> &str {
        // Of old kernels the namespace files are procfs's own.
        let lives = statfs(&self.netns)
            .is_ok_and(|fs| [NSFS_MAGIC, PROC_SUPER_MAGIC].contains(&fs.filesystem_type()));
        if lives { utf8(&self.netns) } else { "" }
    }

    /// One plugin's call.
    pub(super) fn call<'a>(
        &'a self,
        plugin: &'a Plugin,
        verb: Verb,
        (netns, args): (&'a str, &'a str),
        previous: Option<&RawValue>,
        deadline: Deadline,
    ) -> Result<Call<'a>> {
        let mut document = document(&self.list, plugin)?;
        if let Some(previous) = previous {
            document.insert("prevResult".to_owned(), previous.to_owned());
        }
        if let Some(config) = runtime_config(&plugin.capabilities, &self.capability_args) {
            insert(&mut document, "runtimeConfig", &config)?;
        }
        Ok(Call {
            network: &self.list.name,
            plugin: &plugin.kind,
            verb,
            container: Some(Container {
                id: &self.key.container,
                netns,
                interface: &self.key.interface,
                args,
            }),
            stdin: bytes(&document)?,
            deadline,
        })
    }
}

// === impl Key ===

impl Key {
    pub(super) fn of(attachment: &Attachment) -> Self {
        Self {
            network: attachment.network.clone(),
            container: attachment.sandbox_id.clone(),
            interface: attachment.interface.clone(),
        }
    }
}

/// A plugin's object with what every verb adds (CNI spec, "Deriving execution configuration"):
/// names and version of the list; what is the runtime's own to say is dropped.
pub(super) fn document(list: &NetworkList, plugin: &Plugin) -> Result<Object> {
    let mut document = plugin.object.clone();
    document.retain(|key, _| key != "runtimeConfig" && key != "prevResult" && !key.starts_with("cni.dev/"));
    insert(&mut document, "name", &list.name)?;
    insert(&mut document, "cniVersion", list.version.as_str())?;
    Ok(document)
}

pub(super) fn insert<T: Serialize + ?Sized>(document: &mut Object, key: &str, value: &T) -> Result<()> {
    let raw = serde_json::value::to_raw_value(value).map_err(|e| Error::Invalid(e.to_string()))?;
    document.insert(key.to_owned(), raw);
    Ok(())
}

pub(super) fn bytes(document: &Object) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|e| Error::Invalid(e.to_string()))
}

/// What CRI runtimes tell plugins in `CNI_ARGS`. Without `IgnoreUnknown` the plugin library refuses the rest.
pub(super) fn cni_args(request: &AttachRequest) -> Result<Vec<(String, String)>> {
    let pairs = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", &request.pod_namespace),
        ("K8S_POD_NAME", &request.pod_name),
        ("K8S_POD_INFRA_CONTAINER_ID", &request.sandbox_id),
        ("K8S_POD_UID", &request.pod_uid),
    ];
    // The form has no escapes.
    if let Some((key, value)) = pairs.iter().find(|(_, value)| value.contains([';', '\0'])) {
        return Err(Error::Invalid(format!("{key} {value:?} cannot be told to CNI plugins")));
    }
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec())
}

/// CNI spec, "Parameters"; the kernel's limit is 15 bytes.
pub(super) fn is_interface(name: &str) -> bool {
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.chars().all(good)
}

/// A path that was checked when the attachment was planned; otherwise nothing.
pub(super) fn utf8(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_the_kernels() {
        for name in ["eth0", "a", "net-1.2_3", "123456789012345"] {
            assert!(is_interface(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "1234567890123456"] {
            assert!(!is_interface(name), "{name}");
        }
    }

    #[test]
    fn arguments_that_would_add_arguments_are_refused() {
        let request = AttachRequest { pod_name: "a;K8S_POD_UID=x".to_owned(), ..Default::default() };
        let error = cni_args(&request).unwrap_err();
        assert!(error.to_string().contains("K8S_POD_NAME"), "{error}");
    }

    #[test]
    fn what_is_the_runtimes_own_is_dropped_from_the_configuration() {
        let list = NetworkList::parse(
            br#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a","x":1,"name":"other",
                "prevResult":{},"runtimeConfig":{},"cni.dev/x":1,"args":{"y":1}}]}"#,
            "test",
        )
        .unwrap();
        let document = document(&list, &list.plugins[0]).unwrap();
        assert_eq!(document.keys().collect::<Vec<_>>(), ["args", "cniVersion", "name", "type", "x"]);
        assert_eq!((document["name"].get(), document["cniVersion"].get()), ("\"n\"", "\"1.0.0\""));
    }
}
