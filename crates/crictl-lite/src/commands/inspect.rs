// SPDX-License-Identifier: Apache-2.0
//! `inspect`, `inspectp`, `inspecti`: one thing or several in full.
//!
//! ```text
//! { "status": the status, "info": ..., further facts of the runtime, each under its key }
//! ```
//!
//! Several things make a list of these. One that fails does not keep the others from being shown.

use std::collections::HashMap;

use hull_cri_api::v1::{ContainerStatusRequest, ImageSpec, ImageStatusRequest, PodSandboxStatusRequest};
use serde_json::{Map, Value};
use tonic::Code;

use crate::cli::{Format, Inspect};
use crate::client::{Client, call, rpc_error};
use crate::error::{Error, Failures};
use crate::output::{self, json, yaml};

/// Shows containers.
pub(crate) async fn containers(client: &Client, args: &Inspect) -> Result<u8, Failures> {
    let runtime = client.runtime().await?;
    let one = async |id: &str| {
        let mut runtime = runtime.clone();
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: !args.quiet };
        let response = call(client.limit(), request, |request| runtime.container_status(request))
            .await
            .map_err(rpc_error("inspect", id))?;
        let status = response.status.ok_or_else(|| no_status("inspect", id))?;
        Ok((json::value("ContainerStatus", &status)?, response.info))
    };
    show(args, one).await
}

/// Shows pod sandboxes.
pub(crate) async fn pods(client: &Client, args: &Inspect) -> Result<u8, Failures> {
    let runtime = client.runtime().await?;
    let one = async |id: &str| {
        let mut runtime = runtime.clone();
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: !args.quiet };
        let response = call(client.limit(), request, |request| runtime.pod_sandbox_status(request))
            .await
            .map_err(rpc_error("inspectp", id))?;
        let status = response.status.ok_or_else(|| no_status("inspectp", id))?;
        Ok((json::value("PodSandboxStatus", &status)?, response.info))
    };
    show(args, one).await
}

/// Shows images.
pub(crate) async fn images(client: &Client, args: &Inspect) -> Result<u8, Failures> {
    let images = client.images().await?;
    let one = async |id: &str| {
        let mut images = images.clone();
        let image = Some(ImageSpec { image: id.to_owned(), ..Default::default() });
        let request = ImageStatusRequest { image, verbose: !args.quiet };
        let response = call(client.limit(), request, |request| images.image_status(request))
            .await
            .map_err(rpc_error("inspecti", id))?;
        let image = response.image.ok_or_else(|| no_image("inspecti", id))?;
        Ok((json::value("Image", &image)?, response.info))
    };
    show(args, one).await
}

/// The CRI answers a question for an absent image with nothing.
pub(crate) fn no_image(operation: &'static str, id: &str) -> Error {
    Error::Refused { operation, id: id.to_owned(), problem: "no such image".to_owned(), code: Code::NotFound }
}

/// The runtime's answer lacks what it is for.
pub(crate) fn no_status(operation: &'static str, id: &str) -> Error {
    let problem = "the runtime's answer holds no status".to_owned();
    Error::Invalid { operation, id: id.to_owned(), problem }
}

async fn show(
    args: &Inspect,
    one: impl AsyncFn(&str) -> Result<(Value, HashMap<String, String>), Error>,
) -> Result<u8, Failures> {
    let mut failures = Failures::default();
    let mut documents = Vec::new();
    for id in &args.ids {
        match one(id).await {
            Ok((status, facts)) => documents.push(document(status, &facts)),
            Err(error) => failures.push(error),
        }
    }
    if !documents.is_empty() {
        let format = args.output.output;
        failures.note(output::print(&render(format, args.ids.len() > 1, documents)));
    }
    failures.into_result()
}

fn document(status: Value, facts: &HashMap<String, String>) -> Value {
    let mut document = match json::info(facts) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    document.insert("status".to_owned(), status);
    Value::Object(document)
}

fn render(format: Format, several: bool, mut documents: Vec<Value>) -> String {
    if format == Format::Table {
        return documents.iter().map(fields).collect::<Vec<_>>().join("\n");
    }
    let value = match documents.pop() {
        Some(only) if !several => only,
        last => Value::Array(documents.into_iter().chain(last).collect()),
    };
    if format == Format::Json { json::text(&value) } else { yaml::emit(&value) }
}

/// The status as one line for each field; what is no plain value stays JSON.
fn fields(document: &Value) -> String {
    let Some(status) = document.get("status").and_then(Value::as_object) else { return String::new() };
    let width = status.keys().map(String::len).max().unwrap_or(0) + 1;
    let line = |(key, value): (&String, &Value)| {
        let document = value.to_string();
        let text = value.as_str().map_or_else(|| hull_escape::json(&document), hull_escape::escape);
        format!("{:width$} {text}", format!("{key}:")).trim_end().to_owned() + "\n"
    };
    status.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_stand_beside_the_status() {
        let facts = HashMap::from([
            ("info".to_owned(), r#"{"pid": 7}"#.to_owned()),
            // A runtime cannot put itself in the status's place.
            ("status".to_owned(), "other".to_owned()),
        ]);
        let document = document(json!({"id": "x"}), &facts);
        assert_eq!(document, json!({"status": {"id": "x"}, "info": {"pid": 7}}));
    }

    #[test]
    fn several_make_a_list_and_one_does_not() {
        let one = render(Format::Json, false, vec![json!({"status": {}})]);
        assert!(one.starts_with('{'), "{one}");
        // Two were asked for and one was found: still a list, for the script that reads it.
        let list = render(Format::Json, true, vec![json!({"status": {}})]);
        assert!(list.starts_with('['), "{list}");
    }

    #[test]
    fn fields_line_up() {
        let text = fields(&json!({"status": {"id": "x\n", "labels": {"a": "b"}}}));
        assert_eq!(text, "id:     x\\n\nlabels: {\"a\":\"b\"}\n");
    }
}
