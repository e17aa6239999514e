// SPDX-License-Identifier: Apache-2.0
//! Check: lease, link and addresses are as attach left them.

use std::sync::Arc;

use super::{Shared, blocking, keeper, names, node, plug};
use crate::{Attachment, Error, Result};

pub(super) async fn check(shared: &Arc<Shared>, attachment: &Attachment) -> Result<()> {
    let id = super::own(shared, attachment)?.to_owned();
    let turn = shared.turn(&id).await;
    let lease = shared.book().get(&id).cloned();
    let Some(lease) = lease else { return Err(Error::Invalid(format!("{id} is not attached"))) };
    let bridge = keeper::node(shared).await?.index;
    let (netns, name) = (attachment.netns.clone(), shared.config.name.clone());
    blocking("look at the pod's network", move || {
        let _turn = turn;
        let failed = |source| Error::Io { context: format!("look at the network of pod {id}"), source };
        let host = names::host_link(&id);
        if !node::is_plugged(&host, bridge).map_err(failed)? {
            return Err(Error::Invalid(format!(
                "{id}: its link {host} is not there, not up, or not on {name}"
            )));
        }
        match plug::look(&netns).map_err(failed)? {
            Some((true, ips)) => match lease.ips.iter().find(|ip| !ips.contains(ip)) {
                Some(ip) => Err(Error::Invalid(format!("{id}: its interface has lost the address {ip}"))),
                None => Ok(()),
            },
            Some((false, _)) => Err(Error::Invalid(format!("{id}: its interface is down"))),
            None => Err(Error::Invalid(format!("{id}: it has no interface {}", names::POD_LINK))),
        }
    })
    .await
}
