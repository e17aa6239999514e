// SPDX-License-Identifier: Apache-2.0
//! `runp`, `pods`, `stopp`, `rmp`.

use hull_cri_api::v1::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxState, PodSandboxStateValue, PodSandboxStatusRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StopPodSandboxRequest,
};
use tonic::Code;

use crate::cli::{PodState, Pods, Remove, RunPod};
use crate::client::{Client, Runtime, call, rpc_error};
use crate::config;
use crate::error::{Error, Failures};
use crate::filter::Pattern;
use crate::output::text::{ago, now, short_id};
use crate::output::{self, json, table::Table};

/// Makes a pod sandbox and prints its id.
pub(crate) async fn run(client: &Client, args: RunPod) -> Result<(), Error> {
    let config = config::read_pod(&args.pod_config)?;
    let mut runtime = client.runtime().await?;
    output::print_line(&send_run(client, &mut runtime, "runp", config, args.runtime).await?)
}

/// The name that an error says: there is no id yet.
fn name_of(config: &PodSandboxConfig) -> String {
    config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default()
}

/// Makes a pod sandbox and returns its id.
pub(crate) async fn send_run(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    config: PodSandboxConfig,
    runtime_handler: String,
) -> Result<String, Error> {
    let name = name_of(&config);
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler };
    call(client.run_pod_limit(), request, |request| runtime.run_pod_sandbox(request))
        .await
        .map(|response| response.pod_sandbox_id)
        .map_err(rpc_error(operation, &name))
}

/// Lists pod sandboxes, the newest first.
pub(crate) async fn list(client: &Client, args: Pods) -> Result<(), Error> {
    let name = Pattern::new("--name", args.name.as_deref())?;
    let namespace = Pattern::new("--namespace", args.namespace.as_deref())?;
    let state = args.state.map(|state| match state {
        PodState::Ready => PodSandboxState::SandboxReady,
        PodState::Notready => PodSandboxState::SandboxNotready,
    });
    let filter = PodSandboxFilter {
        id: args.id.clone().unwrap_or_default(),
        state: state.map(|state| PodSandboxStateValue { state: state.into() }),
        label_selector: args.label.iter().cloned().collect(),
    };
    let mut items = fetch(client, &mut client.runtime().await?, "pods", Some(filter)).await?;
    items.retain(|pod| {
        let metadata = pod.metadata.clone().unwrap_or_default();
        name.matches(&metadata.name) && namespace.matches(&metadata.namespace)
    });
    items.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    args.newest.cut(&mut items);
    if args.quiet {
        return output::print_lines(items.iter().map(|pod| pod.id.as_str()));
    }
    let response = ListPodSandboxResponse { items };
    output::show(
        args.output.output,
        || json::value("ListPodSandboxResponse", &response),
        || table(&response.items, args.no_trunc),
    )
}

/// Asks for the sandboxes that match `filter`.
pub(crate) async fn fetch(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    filter: Option<PodSandboxFilter>,
) -> Result<Vec<PodSandbox>, Error> {
    let request = ListPodSandboxRequest { filter };
    call(client.limit(), request, |request| runtime.list_pod_sandbox(request))
        .await
        .map(|response| response.items)
        .map_err(rpc_error(operation, ""))
}

fn table(pods: &[PodSandbox], no_trunc: bool) -> String {
    let mut table = Table::new(["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]);
    let now = now();
    for pod in pods {
        let metadata = pod.metadata.clone().unwrap_or_default();
        let state = match PodSandboxState::try_from(pod.state) {
            Ok(PodSandboxState::SandboxReady) => "Ready".to_owned(),
            Ok(PodSandboxState::SandboxNotready) => "NotReady".to_owned(),
            Err(_) => format!("State {}", pod.state),
        };
        let handler = if pod.runtime_handler.is_empty() { "(default)" } else { &pod.runtime_handler };
        table.row([
            if no_trunc { pod.id.clone() } else { short_id(&pod.id).to_owned() },
            ago(pod.created_at, now),
            state,
            metadata.name,
            metadata.namespace,
            metadata.attempt.to_string(),
            handler.to_owned(),
        ]);
    }
    table.render()
}

/// Stops pod sandboxes, all that can be stopped.
pub(crate) async fn stop(client: &Client, ids: Vec<String>) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let mut failures = Failures::default();
    for id in &ids {
        failures.note(match send_stop(client, &mut runtime, "stopp", id).await {
            Ok(()) => output::print_line(&format!("Stopped sandbox {id}")),
            Err(error) => Err(error),
        });
    }
    failures.into_result()
}

/// Stops a pod sandbox.
pub(crate) async fn send_stop(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    id: &str,
) -> Result<(), Error> {
    let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    call(client.limit(), request, |request| runtime.stop_pod_sandbox(request))
        .await
        .map(drop)
        .map_err(rpc_error(operation, id))
}

/// Removes a pod sandbox.
pub(crate) async fn send_remove(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    id: &str,
) -> Result<(), Error> {
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    call(client.limit(), request, |request| runtime.remove_pod_sandbox(request))
        .await
        .map(drop)
        .map_err(rpc_error(operation, id))
}

/// Removes pod sandboxes, all that can be removed.
pub(crate) async fn remove(client: &Client, args: Remove) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let ids = if args.all {
        fetch(client, &mut runtime, "rmp", None).await?.into_iter().map(|pod| pod.id).collect()
    } else {
        args.ids
    };
    let mut failures = Failures::default();
    for id in &ids {
        match remove_one(client, &mut runtime, id, args.force).await {
            // Somebody else was quicker.
            Err(error) if args.all && error.is_not_found() => {}
            result => failures.note(result),
        }
    }
    failures.into_result()
}

async fn remove_one(client: &Client, runtime: &mut Runtime, id: &str, force: bool) -> Result<(), Error> {
    // RemovePodSandbox succeeds for an unknown id and kills what runs: asking first prevents both.
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let response = call(client.limit(), request, |request| runtime.pod_sandbox_status(request))
        .await
        .map_err(rpc_error("rmp", id))?;
    if response.status.is_some_and(|status| status.state() == PodSandboxState::SandboxReady) {
        if !force {
            let problem = "the pod sandbox is ready; stop it first, or use --force".to_owned();
            return Err(Error::Refused {
                operation: "rmp",
                id: id.to_owned(),
                problem,
                code: Code::FailedPrecondition,
            });
        }
        send_stop(client, runtime, "rmp", id).await?;
    }
    send_remove(client, runtime, "rmp", id).await?;
    output::print_line(&format!("Removed sandbox {id}"))
}
