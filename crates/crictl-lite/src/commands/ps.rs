// SPDX-License-Identifier: Apache-2.0
//! `ps`.

use std::collections::HashMap;

use hull_cri_api::v1::{
    Container, ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest,
    ListContainersResponse,
};

use crate::cli::{ContainerState as Wanted, Format, Ps};
use crate::client::{Client, Runtime, call, rpc_error};
use crate::commands::pods;
use crate::error::Error;
use crate::filter::Pattern;
use crate::output::text::{ago, now, short_id};
use crate::output::{self, json, table::Table};

/// Labels by which the kubelet says which pod a container is of.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// Lists containers, the newest first.
pub(crate) async fn list(client: &Client, args: Ps) -> Result<(), Error> {
    let name = Pattern::new("--name", args.name.as_deref())?;
    let mut runtime = client.runtime().await?;
    let request = ListContainersRequest { filter: Some(filter(&args)) };
    let mut containers = call(client.limit(), request, |request| runtime.list_containers(request))
        .await
        .map_err(rpc_error("ps", ""))?
        .containers;
    containers
        .retain(|container| name.matches(container.metadata.as_ref().map_or("", |metadata| &metadata.name)));
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    args.newest.cut(&mut containers);
    if args.quiet {
        return output::print_lines(containers.iter().map(|container| container.id.as_str()));
    }
    let format = args.output.output;
    let pods = if format == Format::Table {
        pod_names(client, &mut runtime, &containers).await
    } else {
        HashMap::new()
    };
    let response = ListContainersResponse { containers };
    output::show(
        format,
        || json::value("ListContainersResponse", &response),
        || table(&response.containers, &pods, args.no_trunc),
    )
}

fn filter(args: &Ps) -> ContainerFilter {
    let wanted = args.state.map(|state| match state {
        Wanted::Created => ContainerState::ContainerCreated,
        Wanted::Running => ContainerState::ContainerRunning,
        Wanted::Exited => ContainerState::ContainerExited,
        Wanted::Unknown => ContainerState::ContainerUnknown,
    });
    let state = match wanted {
        None if !args.all && !args.newest.is_given() => Some(ContainerState::ContainerRunning),
        wanted => wanted,
    };
    ContainerFilter {
        id: args.id.clone().unwrap_or_default(),
        state: state.map(|state| ContainerStateValue { state: state.into() }),
        pod_sandbox_id: args.pod.clone().unwrap_or_default(),
        label_selector: args.label.iter().cloned().collect(),
    }
}

/// Name and namespace of each pod sandbox. Only asked for when some container does not say it itself;
/// a failure then leaves the name unknown, and the list stands.
async fn pod_names(
    client: &Client,
    runtime: &mut Runtime,
    containers: &[Container],
) -> HashMap<String, (String, String)> {
    if containers.iter().all(|container| container.labels.contains_key(POD_NAME)) {
        return HashMap::new();
    }
    let pods = pods::fetch(client, runtime, "ps", None).await.unwrap_or_default();
    let name = |pod: hull_cri_api::v1::PodSandbox| {
        let metadata = pod.metadata.unwrap_or_default();
        (pod.id, (metadata.name, metadata.namespace))
    };
    pods.into_iter().map(name).collect()
}

fn table(containers: &[Container], pods: &HashMap<String, (String, String)>, no_trunc: bool) -> String {
    let mut table = Table::new([
        "CONTAINER",
        "IMAGE",
        "CREATED",
        "STATE",
        "NAME",
        "ATTEMPT",
        "POD ID",
        "POD",
        "NAMESPACE",
    ]);
    let short = |id: &str| if no_trunc { id.to_owned() } else { short_id(id).to_owned() };
    let now = now();
    for container in containers {
        let metadata = container.metadata.clone().unwrap_or_default();
        let pod = pods.get(&container.pod_sandbox_id);
        let label = |key, other: Option<&String>| {
            container.labels.get(key).or(other).map_or_else(|| "unknown".to_owned(), String::clone)
        };
        table.row([
            short(&container.id),
            short(container.image.as_ref().map_or("", |image| &image.image)),
            ago(container.created_at, now),
            state_name(container.state),
            metadata.name,
            metadata.attempt.to_string(),
            short(&container.pod_sandbox_id),
            label(POD_NAME, pod.map(|(name, _)| name)),
            label(POD_NAMESPACE, pod.map(|(_, namespace)| namespace)),
        ]);
    }
    table.render()
}

fn state_name(state: i32) -> String {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => "Created".to_owned(),
        Ok(ContainerState::ContainerRunning) => "Running".to_owned(),
        Ok(ContainerState::ContainerExited) => "Exited".to_owned(),
        Ok(ContainerState::ContainerUnknown) => "Unknown".to_owned(),
        Err(_) => format!("State {state}"),
    }
}
