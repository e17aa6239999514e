// SPDX-License-Identifier: Apache-2.0
//! One connection's odd requests.

use std::sync::Arc;
use std::time::Duration;

use hull_cri_api::v1::*;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::message::Oddities;
use super::{Counts, add};
use crate::{Cri, Daemon, Dice, IMAGE, Pod, raw};

/// Pods of one lane at a time.
const PODS: usize = 4;
/// Names of images that are pulled.
const IMAGES: u64 = 50;
/// Longer no call is waited for: a stream of events has no end.
const PATIENCE: Duration = Duration::from_secs(10);
const RUNTIME: &str = "/runtime.v1.RuntimeService/";

pub(super) struct Lane {
    pool: DescriptorPool,
    methods: Vec<MethodDescriptor>,
    cri: Cri,
    name: String,
    dice: Dice,
    largest: u64,
    counts: Arc<Counts>,
    /// The containers of each.
    pods: Vec<(String, Pod, Vec<String>)>,
    made: u64,
    template: Pod,
}

impl Lane {
    pub(super) fn new(
        daemon: &Daemon,
        pool: &DescriptorPool,
        cri: Cri,
        name: String,
        dice: Dice,
        largest: u64,
        counts: Arc<Counts>,
    ) -> Self {
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
        let template = Pod::new(daemon, &name);
        let pool = pool.clone();
        Self { pool, methods, cri, name, dice, largest, counts, pods: Vec::new(), made: 0, template }
    }

    /// One call, or the few that belong together.
    pub(super) async fn step(&mut self) {
        match self.dice.below(100) {
            _ if self.pods.is_empty() => self.run_pod().await,
            0..12 if self.pods.len() < PODS => self.run_pod().await,
            0..28 => self.create_container().await,
            28..34 => self.with_container("StartContainer").await,
            34..40 => self.with_container("StopContainer").await,
            40..44 => self.with_container("RemoveContainer").await,
            44..50 => self.remove_pod().await,
            _ => self.any().await,
        }
    }

    async fn run_pod(&mut self) {
        self.made += 1;
        let mut pod = self.template.clone();
        let metadata = pod.config.metadata.get_or_insert_default();
        metadata.name = format!("{}-{}", self.name, self.made);
        metadata.uid = format!("uid-{}-{}", self.name, self.made);
        let request = RunPodSandboxRequest { config: Some(pod.config.clone()), ..Default::default() };
        let answer = self.odd_twice("RunPodSandbox", &request).await;
        if let Some(id) = answer.and_then(|bytes| RunPodSandboxResponse::decode(&*bytes).ok()) {
            add(&self.counts.pods, 1);
            self.pods.push((id.pod_sandbox_id, pod, Vec::new()));
        }
    }

    async fn create_container(&mut self) {
        let at = self.dice.index(self.pods.len());
        self.made += 1;
        let (id, pod, _) = &self.pods[at];
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: format!("c{}", self.made), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() }),
            command: vec!["sleep".to_owned(), "1000".to_owned()],
            log_path: format!("c{}.log", self.made),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let answer = self.odd_twice("CreateContainer", &request).await;
        if let Some(made) = answer.and_then(|bytes| CreateContainerResponse::decode(&*bytes).ok()) {
            self.pods[at].2.push(made.container_id);
        }
    }

    /// An odd request; one whose caller left comes again now and then, with the same key.
    async fn odd_twice<M: Message>(&mut self, method: &str, request: &M) -> Option<Vec<u8>> {
        let path = format!("{RUNTIME}{method}");
        let descriptor = self.methods.iter().find(|it| it.name() == method).expect("a method").input();
        let mut message = DynamicMessage::new(descriptor);
        message.transcode_from(request).expect("a message of the CRI");
        if self.dice.below(3) > 0 {
            self.alter(&mut message);
        }
        let bytes = message.encode_to_vec();
        match self.call(&path, bytes.clone()).await {
            None if self.dice.below(2) == 0 => self.call(&path, bytes).await?.ok(),
            answer => answer?.ok(),
        }
    }

    fn alter(&mut self, message: &mut DynamicMessage) {
        for _ in 0..=self.dice.below(2) {
            Oddities { dice: &mut self.dice, largest: self.largest }.alter(message, 0);
        }
    }

    async fn with_container(&mut self, method: &str) {
        let at = self.dice.index(self.pods.len());
        let containers = &mut self.pods[at].2;
        if containers.is_empty() {
            return self.create_container().await;
        }
        let which = self.dice.index(containers.len());
        let id = if method == "RemoveContainer" {
            containers.swap_remove(which)
        } else {
            containers[which].clone()
        };
        // The three begin alike.
        let request = StartContainerRequest { container_id: id };
        let _ = self.call(&format!("{RUNTIME}{method}"), request.encode_to_vec()).await;
    }

    async fn remove_pod(&mut self) {
        let at = self.dice.index(self.pods.len());
        let (id, ..) = self.pods.swap_remove(at);
        let request = RemovePodSandboxRequest { pod_sandbox_id: id };
        if self.dice.below(2) == 0 {
            let _ = self.call(&format!("{RUNTIME}StopPodSandbox"), request.encode_to_vec()).await;
        }
        let _ = self.call(&format!("{RUNTIME}RemovePodSandbox"), request.encode_to_vec()).await;
    }

    /// Any method, about something that is there in most cases.
    async fn any(&mut self) {
        let method = self.methods[self.dice.index(self.methods.len())].clone();
        let mut message = DynamicMessage::new(method.input());
        let pod = &self.pods[self.dice.index(self.pods.len())];
        let container = pod.2.last().cloned().unwrap_or_default();
        let image = format!("docker.io/library/odd-{}:latest", self.dice.below(IMAGES));
        let mut spec =
            DynamicMessage::new(self.pool.get_message_by_name("runtime.v1.ImageSpec").expect("ImageSpec"));
        spec.set_field_by_name("image", Value::String(image));
        let words = ["echo", "odd"].map(|word| Value::String(word.to_owned())).to_vec();
        for (name, value) in [
            ("pod_sandbox_id", Value::String(pod.0.clone())),
            ("container_id", Value::String(container)),
            ("image", Value::Message(spec)),
            ("cmd", Value::List(words)),
            ("stdout", Value::Bool(true)),
        ] {
            // A method that has no such field does without.
            let _ = message.try_set_field_by_name(name, value);
        }
        if self.dice.below(4) > 0 {
            self.alter(&mut message);
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        if method.is_server_streaming() {
            let messages = self.dice.below(5);
            let read = async {
                let mut stream = raw::stream(&self.cri.channel, &path, message.encode_to_vec()).await?;
                for _ in 0..messages {
                    stream.message().await?;
                }
                Ok::<_, Status>(())
            };
            let answer = timeout(Duration::from_millis(20), read).await;
            add(&self.counts.calls, 1);
            self.counts.answered(&answer.map_or("left".to_owned(), |it| code(it.err())));
            return;
        }
        let _ = self.call(&path, message.encode_to_vec()).await;
    }

    /// `None`: the caller left.
    async fn call(&mut self, path: &str, bytes: Vec<u8>) -> Option<Result<Vec<u8>, Status>> {
        add(&self.counts.calls, 1);
        add(&self.counts.bytes, bytes.len());
        let patience = match self.dice.below(20) {
            0 => Duration::from_millis(self.dice.below(20)),
            _ => PATIENCE,
        };
        let Ok(answer) = timeout(patience, raw::call(&self.cri.channel, path, bytes)).await else {
            add(&self.counts.cancelled, 1);
            return None;
        };
        let error = answer.as_ref().err();
        if let Some(status) =
            error.filter(|status| matches!(status.code(), Code::Internal | Code::Unavailable | Code::Unknown))
        {
            // What no request must cause.
            let name = path.rsplit('/').next().unwrap_or_default();
            // The cause is the last of its words.
            let text = status.message();
            let text: String = text.chars().skip(text.chars().count().saturating_sub(250)).collect();
            self.counts.answered(&format!("{name} {}: {text}", code(error.cloned())));
        } else {
            self.counts.answered(&code(error.cloned()));
        }
        Some(answer)
    }
}

fn code(status: Option<Status>) -> String {
    format!("{:?}", status.map_or(Code::Ok, |status| status.code()))
}
