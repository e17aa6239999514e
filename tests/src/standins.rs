// SPDX-License-Identifier: Apache-2.0
//! Stand-ins for the public images that `critest` names, made from this machine's programs and pushed to a
//! registry on loopback: the suite then needs nothing from outside.
//!
//! ```text
//! registry.k8s.io/                e2e-test-images/{busybox,nginx,httpd,nonewprivs}, pause
//! k8s.gcr.io/                     pause                                    (the same one)
//! gcr.io/k8s-staging-cri-tools/   test-image-*, hostnet-nginx-ARCH
//! ```
//! A mirror keeps the path and drops the host, so one registry holds all of them. What a stand-in must have is
//! what the suite looks at: users, groups, tags, programs, ports. One image is missing: the suite names
//! `test-image-digest` by a digest that nobody can reproduce.

mod content;
mod document;
mod push;

use hull_image_store::testing::{Encoded, ImageBuilder};

use content::Content;
use document::Form;
use push::Registry;

/// One image, with its repository in the registry.
#[derive(Debug)]
struct Standin {
    repository: String,
    tags: Vec<&'static str>,
    form: Form,
    content: Content,
}

/// Makes all of them and pushes them to the registry at `HOST:PORT`, which speaks plain http. Returns the names.
///
/// # Panics
/// When a program is missing that they are made of, or the registry refuses.
pub fn push(registry: &str) -> Vec<String> {
    // What several lie on is packed once.
    let nothing = ImageBuilder::unnamed().encode();
    let busybox = content::busybox().encode();
    let nginx = document::stack(&busybox, &content::nginx());
    let registry = Registry::new(registry);
    let mut names = Vec::new();
    for standin in all() {
        let below = match standin.content {
            Content::Pause => &nothing,
            Content::Nginx(_) => &nginx,
            _ => &busybox,
        };
        let own: Vec<_> = standin.tags.iter().map(|tag| format!("{}:{tag}", standin.repository)).collect();
        // Without a label some of them would be one and the same image.
        let image = standin.content.image().label("stand-in", &own[0]);
        push_one(&registry, &standin, &image, &document::stack(below, &image));
        names.extend(own);
    }
    names
}

fn push_one(registry: &Registry, standin: &Standin, image: &ImageBuilder, encoded: &Encoded) {
    let repository = &standin.repository;
    for (_, layer) in &encoded.layers {
        registry.blob(repository, layer);
    }
    registry.blob(repository, &encoded.config);
    let documents = document::documents(encoded, &image.config, standin.form);
    let (top, below) = documents.split_last().expect("at least a manifest");
    for document in below {
        registry.manifest(repository, &document.digest(), document);
    }
    for tag in &standin.tags {
        registry.manifest(repository, tag, top);
    }
}

fn all() -> Vec<Standin> {
    let arch = ImageBuilder::unnamed().config.architecture;
    vec![
        e2e("e2e-test-images/busybox", "1.29-2", Content::Shell),
        e2e("e2e-test-images/nginx", "1.14-2", Content::Nginx(80)),
        e2e("e2e-test-images/httpd", "2.4.39-4", Content::Httpd),
        e2e("e2e-test-images/nonewprivs", "1.3", Content::NoNewPrivs),
        e2e("pause", "3.9", Content::Pause),
        tools("latest", &["latest"], Content::Shell),
        tools("tag", &["test"], Content::Shell),
        tools("tag", &["all"], Content::Shell),
        tools("1", &["latest"], Content::Shell),
        tools("2", &["latest"], Content::Shell),
        tools("3", &["latest"], Content::Shell),
        tools("tags", &["1", "2", "3"], Content::Shell),
        tools("user-uid", &["latest"], Content::User("1002")),
        tools("user-username", &["latest"], Content::User("www-data")),
        tools("user-uid-group", &["latest"], Content::User("1003:1004")),
        tools("user-username-group", &["latest"], Content::User("www-data:1004")),
        tools("predefined-group", &["latest"], Content::PredefinedGroup),
        Standin {
            repository: format!("k8s-staging-cri-tools/hostnet-nginx-{arch}"),
            ..tools("", &["latest"], Content::Nginx(12003))
        },
    ]
}

/// For several platforms, as the public ones are.
fn e2e(repository: &str, tag: &'static str, content: Content) -> Standin {
    Standin { repository: repository.to_owned(), tags: vec![tag], form: Form::List, content }
}

fn tools(name: &str, tags: &[&'static str], content: Content) -> Standin {
    let repository = format!("k8s-staging-cri-tools/test-image-{name}");
    Standin { repository, tags: tags.to_vec(), form: Form::Docker, content }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_standins_have_a_tag_in_common() {
        let mut names = std::collections::BTreeSet::new();
        for standin in all() {
            for tag in &standin.tags {
                assert!(names.insert(format!("{}:{tag}", standin.repository)), "{tag} of {standin:?}");
            }
        }
    }
}
