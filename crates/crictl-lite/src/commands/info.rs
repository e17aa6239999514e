// SPDX-License-Identifier: Apache-2.0
//! `info` and `version`.

use hull_cri_api::v1::{StatusRequest, StatusResponse, VersionRequest, VersionResponse};
use serde_json::{Map, Value};

use crate::cli::Format;
use crate::client::{Client, call, rpc_error};
use crate::error::Error;
use crate::output::{self, json, table::Table};

/// Shows the runtime's status, with its further facts beside it.
pub(crate) async fn info(client: &Client, format: Format) -> Result<(), Error> {
    let mut runtime = client.runtime().await?;
    let request = StatusRequest { verbose: format != Format::Table };
    let mut response = call(client.limit(), request, |request| runtime.status(request))
        .await
        .map_err(rpc_error("info", ""))?;
    let facts = json::info(&std::mem::take(&mut response.info));
    output::show(format, || document(&response, facts), || conditions(&response))
}

/// The facts on top, the answer's own fields over them.
fn document(response: &StatusResponse, facts: Value) -> Result<Value, Error> {
    let mut document = Map::new();
    for part in [facts, json::value("StatusResponse", response)?] {
        if let Value::Object(map) = part {
            document.extend(map);
        }
    }
    // They stand on top already.
    document.remove("info");
    Ok(Value::Object(document))
}

fn conditions(response: &StatusResponse) -> String {
    let mut table = Table::new(["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in response.status.iter().flat_map(|status| &status.conditions) {
        table.row([
            condition.r#type.clone(),
            condition.status.to_string(),
            condition.reason.clone(),
            condition.message.clone(),
        ]);
    }
    table.render()
}

/// Shows the runtime's version.
pub(crate) async fn version(client: &Client, format: Format) -> Result<(), Error> {
    let mut runtime = client.runtime().await?;
    // The kubelet says so of itself too.
    let request = VersionRequest { version: "v1".to_owned() };
    let response = call(client.limit(), request, |request| runtime.version(request))
        .await
        .map_err(rpc_error("version", ""))?;
    output::show(format, || json::value("VersionResponse", &response), || version_lines(&response))
}

fn version_lines(response: &VersionResponse) -> String {
    let VersionResponse { version, runtime_name, runtime_version, runtime_api_version } = response;
    let lines = [
        ("Version", version),
        ("RuntimeName", runtime_name),
        ("RuntimeVersion", runtime_version),
        ("RuntimeApiVersion", runtime_api_version),
    ];
    lines.map(|(name, value)| format!("{name}:  {}\n", hull_escape::escape(value))).concat()
}
