// SPDX-License-Identifier: Apache-2.0
//! Who proves himself to whom, and to whom not.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{bytes, config, open, password, read, with_hosts, with_image};
use hull_registry::testing::{Auth, Fault, TestRegistry};
use hull_registry::{Credentials, Error, Registry, Repository, Result, Version};

const NAME: &str = "ann";
const SECRET: &str = "s3cret:with colon";

fn bearer() -> Auth {
    Auth::Bearer {
        user: Some((NAME.to_owned(), SECRET.to_owned())),
        identity: Some("refresh-me".to_owned()),
        anonymous: false,
        wider: None,
        realm: None,
    }
}

async fn pull(registry: &TestRegistry, credentials: Option<&Credentials>) -> Result<()> {
    let session = open(config(), &registry.host(), credentials).await;
    session.manifest(Version::Tag("1")).await.map(drop)
}

fn sent(registry: &TestRegistry) -> Vec<Option<String>> {
    registry.seen().iter().map(|seen| seen.headers.get("authorization").cloned()).collect()
}

#[tokio::test]
async fn basic_is_answered_once_it_is_asked_for() {
    let registry = with_image().await;
    registry.require(Auth::Basic(NAME.to_owned(), SECRET.to_owned()));
    let session = open(config(), &registry.host(), Some(&password(NAME, SECRET))).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    session.manifest(Version::Tag("1")).await.unwrap();
    let sent = sent(&registry);
    assert_eq!(sent.len(), 3, "the second manifest needs no second refusal");
    assert!(sent[0].is_none() && sent[1].as_ref().unwrap().starts_with("Basic "));

    let error = pull(&registry, Some(&password(NAME, "wrong-one"))).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("credentials were not accepted"), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong-one"));
    let error = pull(&registry, None).await.unwrap_err();
    assert!(error.to_string().contains("no credentials were given"), "{error}");
}

#[tokio::test]
async fn tokens_come_by_password_identity_or_for_nothing() {
    let registry = with_image().await;
    registry.require(bearer());
    pull(&registry, Some(&password(NAME, SECRET))).await.unwrap();
    let seen = registry.seen();
    let token = &seen[1].path;
    let scope = "scope=repository%3Ateam%2Fapp%3Apull";
    assert!(
        token.starts_with("/token?kept=yes&account=ann&service=test&") && token.ends_with(scope),
        "{token}"
    );

    registry.revoke();
    pull(&registry, Some(&Credentials::IdentityToken("refresh-me".to_owned()))).await.unwrap();
    let posted = registry.seen().into_iter().find(|seen| seen.method == "POST").unwrap();
    assert!(posted.body.contains("grant_type=refresh_token") && posted.body.contains("client_id=hull"));
    assert!(!posted.path.contains("refresh-me"), "a secret in a URL ends in logs");

    for credentials in [None, Some(password(NAME, "no")), Some(Credentials::IdentityToken("no".to_owned()))] {
        let error = pull(&registry, credentials.as_ref()).await.unwrap_err();
        assert!(matches!(error.cause(), Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains("incorrect username or password"), "{error}");
    }
    registry.require(Auth::Bearer { user: None, identity: None, anonymous: true, wider: None, realm: None });
    pull(&registry, None).await.unwrap();
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let registry = with_image().await;
    registry.require(Auth::Bearer { user: None, identity: None, anonymous: true, wider: None, realm: None });
    pull(&registry, None).await.unwrap();
    let token = sent(&registry).pop().flatten().unwrap();
    let token = Credentials::RegistryToken(token.trim_start_matches("Bearer ").to_owned());
    let before = registry.seen().len();
    pull(&registry, Some(&token)).await.unwrap();
    assert_eq!(registry.seen().len(), before + 1);
    registry.revoke();
    let error = pull(&registry, Some(&token)).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn a_token_is_remembered_until_it_is_refused() {
    let registry = with_image().await;
    registry.require(bearer());
    let client = Registry::new(config());
    let manifest = async |name: &str, secret: &str| {
        let repository = Repository::new(registry.host(), "team/app");
        let session = client.open(repository, Some(&password(name, secret))).await.unwrap();
        session.manifest(Version::Tag("1")).await.map(drop)
    };
    manifest(NAME, SECRET).await.unwrap();
    manifest(NAME, SECRET).await.unwrap();
    assert_eq!(registry.count("/token"), 1);
    registry.revoke();
    manifest(NAME, SECRET).await.unwrap();
    assert_eq!(registry.count("/token"), 2, "a token that is refused is got anew, once");
    // Another user does not profit.
    assert!(manifest(NAME, "wrong").await.is_err());
}

#[tokio::test]
async fn a_token_that_is_too_narrow_is_widened_once() {
    let registry = with_image().await;
    let wider = Auth::Bearer {
        user: None,
        identity: None,
        anonymous: true,
        wider: Some("repository:base/image:pull".to_owned()),
        realm: None,
    };
    registry.require(wider);
    pull(&registry, None).await.unwrap();
    assert_eq!((registry.count("/manifests/"), registry.count("/token")), (3, 2));
    registry.require(Auth::Bearer {
        user: None,
        identity: None,
        anonymous: true,
        wider: Some("never".to_owned()),
        realm: Some(format!("{}#", registry.url("/token?scope=x&"))),
    });
    let error = pull(&registry, None).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_no_authorization_along() {
    let registry = with_image().await;
    let storage = TestRegistry::start().await;
    let layer = bytes(100);
    let digest = registry.put_blob(&layer);
    storage.put_blob(&layer);
    registry.require(Auth::Basic(NAME.to_owned(), SECRET.to_owned()));
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!("server = \"{}\"\n[header]\nx-private = \"1\"\n", registry.url(""));
    TestRegistry::write_hosts(dir.path(), &registry.host(), &hosts);
    let session = open(with_hosts(dir.path()), &registry.host(), Some(&password(NAME, SECRET))).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    let to = |location: String| Fault::Status(302, vec![("location", location)], String::new());
    registry.on("/blobs/", to(storage.url(&format!("/x/{digest}"))));
    assert_eq!(read(&session, &digest, 100).await.unwrap(), layer);
    let there = storage.seen().remove(0);
    assert!(!there.headers.contains_key("authorization") && !there.headers.contains_key("x-private"));
    // Within the host it stays.
    registry.on("/blobs/", to(format!("/v2/team/app/other/{digest}")));
    assert_eq!(read(&session, &digest, 100).await.unwrap(), layer);
    let there = registry.seen().pop().unwrap();
    assert!(there.path.contains("/other/") && there.headers.contains_key("authorization"));
    assert_eq!(there.headers["x-private"], "1");
    // The storage's own refusal is not the registry's challenge.
    storage.require(Auth::Basic("x".to_owned(), "y".to_owned()));
    registry.on("/blobs/", to(storage.url(&format!("/x/{digest}"))));
    assert!(matches!(read(&session, &digest, 100).await, Err(Error::Unauthorized { .. })));
    assert!(storage.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn a_mirror_on_another_host_never_sees_the_credentials() {
    let (origin, mirror) = (with_image().await, with_image().await);
    for registry in [&origin, &mirror] {
        registry.require(bearer());
    }
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!("server = \"{}\"\n[host.\"{}\"]\n", origin.url(""), mirror.url(""));
    TestRegistry::write_hosts(dir.path(), "example.com", &hosts);
    let session = open(with_hosts(dir.path()), "example.com", Some(&password(NAME, SECRET))).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    assert_eq!(mirror.count("/token"), 1, "the mirror is asked as anybody would ask it");
    assert!(sent(&mirror).iter().all(Option::is_none));
    assert!(sent(&origin).iter().any(Option::is_some));
    // A mirror that is the registry's own host is the registry.
    let hosts = format!("[host.\"{}\"]\n", origin.url("/cache"));
    TestRegistry::write_hosts(dir.path(), &origin.host(), &hosts);
    let session = open(with_hosts(dir.path()), &origin.host(), Some(&password(NAME, SECRET))).await;
    let _ = session.manifest(Version::Tag("1")).await;
    assert!(
        origin
            .seen()
            .iter()
            .any(|seen| { seen.path.starts_with("/cache/") && seen.headers.contains_key("authorization") })
    );
}

#[tokio::test]
async fn a_challenge_that_leads_nowhere_is_an_error() {
    let registry = with_image().await;
    for (challenge, part) in [
        ("Bearer service=\"x\"", "does not say from whom"),
        ("Bearer realm=\"ftp://x\"", "neither http nor https"),
        ("Negotiate", "said the test registry"),
        ("", "no credentials were given"),
    ] {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"said the test registry"}]}"#.to_owned();
        registry
            .on("/manifests/", Fault::Status(401, vec![("www-authenticate", challenge.to_owned())], body));
        let error = pull(&registry, None).await.unwrap_err().to_string();
        assert!(error.contains(part), "{challenge}: {error}");
    }
}

#[tokio::test]
async fn a_realm_on_plain_http_gets_no_credentials_of_an_https_registry() {
    let (registry, realm) = (TestRegistry::start_tls(false).await, with_image().await);
    registry.require(Auth::Bearer {
        user: None,
        identity: None,
        anonymous: true,
        wider: None,
        realm: Some(realm.url("/token")),
    });
    let dir = tempfile::tempdir().unwrap();
    TestRegistry::write_hosts(dir.path(), &registry.host(), "skip_verify = true");
    let session = open(with_hosts(dir.path()), &registry.host(), Some(&password(NAME, SECRET))).await;
    let error = session.manifest(Version::Tag("1")).await.unwrap_err();
    assert!(error.to_string().contains("over plain http; refused"), "{error}");
    assert_eq!(realm.seen().len(), 0);
}
