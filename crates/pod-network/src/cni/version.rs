// SPDX-License-Identifier: Apache-2.0
//! Versions of the CNI protocol, and the VERSION verb.

use std::time::Duration;

use serde::Deserialize;

use super::conf::NetworkList;
use super::invoke::{Call, Deadline, Invoker, Verb};
use crate::{Error, Result};

/// A version of the CNI specification that this daemon speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
}

/// Asks every plugin of a network whether it speaks the network's version. A plugin that fails to
/// answer passes: those of version 0.1.0 do not know the verb, and ADD will tell.
///
/// # Errors
/// [`Error::Plugin`] for one that answers with other versions.
pub(super) async fn probe(invoker: &Invoker, list: &NetworkList, limit: Duration) -> Result<()> {
    let deadline = Deadline::after(limit);
    for plugin in &list.plugins {
        let stdin = format!("{{\"cniVersion\":\"{}\"}}", list.version.as_str()).into_bytes();
        let call = Call {
            network: &list.name,
            plugin: &plugin.kind,
            verb: Verb::Version,
            container: None,
            stdin,
            deadline,
        };
        let supported = match invoker.run(call).await.map(|bytes| serde_json::from_slice::<Answer>(&bytes)) {
            Ok(Ok(answer)) => answer.supported,
            Ok(Err(error)) => {
                tracing::debug!(plugin = plugin.kind, %error, "no usable answer to VERSION");
                continue;
            }
            Err(error) => {
                tracing::debug!(plugin = plugin.kind, %error, "no answer to VERSION");
                continue;
            }
        };
        if !supported.iter().any(|version| version == list.version.as_str()) {
            return Err(Error::Plugin {
                network: list.name.clone(),
                plugin: plugin.kind.clone(),
                command: "VERSION",
                code: None,
                message: format!(
                    "{} asks for CNI version {}, the plugin speaks {}",
                    list.source,
                    list.version.as_str(),
                    supported.join(", ")
                ),
            });
        }
    }
    Ok(())
}

// === impl Version ===

impl Version {
    pub(crate) const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The version of a text; empty means the first (libcni).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// CHECK, and the result of ADD as input of DEL.
    pub(crate) fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// STATUS and GC.
    pub(crate) fn has_status(self) -> bool {
        self >= Self::V1_1_0
    }
}
