// SPDX-License-Identifier: Apache-2.0
//! `WWW-Authenticate` (RFC 9110, section 11.6.1).
//!
//! ```text
//! challenges = challenge { "," challenge }          also over several header lines
//! challenge  = scheme [ SP ( token68 | parameter { "," parameter } ) ]
//! parameter  = token "=" ( token | quoted-string )
//! ```
//! A comma separates parameters as well as challenges, and may stand inside quotes: what follows one is a parameter
//! if it is `name=value`, else the next scheme.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One way to authenticate that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower case.
    pub(crate) scheme: String,
    /// Names are lower case.
    parameters: Vec<(String, String)>,
}

/// The challenges of a response. What cannot be read is left out.
pub(crate) fn of(headers: &HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE).iter();
    lines.flat_map(|line| parse(&String::from_utf8_lossy(line.as_bytes()))).collect()
}

pub(crate) fn parse(text: &str) -> Vec<Challenge> {
    let mut reader = Reader { text };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        reader.skip(|c| c == ',' || c.is_ascii_whitespace());
        let Some(word) = reader.token() else {
            // Garbage: the rest of it until something may begin again.
            if !reader.skip_one() {
                return challenges;
            }
            continue;
        };
        let spaces = reader.skip(|c| c.is_ascii_whitespace());
        if reader.take('=') {
            reader.skip(|c| c.is_ascii_whitespace());
            let value = reader.value();
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
            continue;
        }
        challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
        if spaces {
            reader.skip_token68();
        }
    }
}

/// Reads from the front.
struct Reader<'a> {
    text: &'a str,
}

// === impl Challenge ===

impl Challenge {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn skip(&mut self, which: impl Fn(char) -> bool) -> bool {
        let before = self.text.len();
        self.text = self.text.trim_start_matches(which);
        self.text.len() < before
    }

    fn skip_one(&mut self) -> bool {
        let mut chars = self.text.chars();
        let any = chars.next().is_some();
        self.text = chars.as_str();
        any
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.text.strip_prefix(wanted) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.text.find(|c| !is_token(c)).unwrap_or(self.text.len());
        let (token, rest) = self.text.split_at(end);
        self.text = rest;
        (!token.is_empty()).then_some(token)
    }

    /// A quoted string or what stands before the next comma.
    fn value(&mut self) -> String {
        if !self.take('"') {
            let end = self.text.find([',', ' ', '\t']).unwrap_or(self.text.len());
            let (value, rest) = self.text.split_at(end);
            self.text = rest;
            return value.to_owned();
        }
        let mut value = String::new();
        let mut chars = self.text.chars();
        loop {
            match chars.next() {
                None | Some('"') => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
            }
        }
        self.text = chars.as_str();
        value
    }

    /// What follows a scheme without being a parameter, as `Negotiate YII=` has it.
    fn skip_token68(&mut self) {
        let end = self.text.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(self.text.len());
        let word = &self.text[..end];
        let is_parameter = word.trim_end_matches('=').contains('=') || word.contains('"');
        // `name=` before white space is a parameter that was written with air around its sign.
        let alone = self.text[end..].trim_start().starts_with(',') || self.text[end..].trim().is_empty();
        if !is_parameter && alone && !word.is_empty() {
            self.text = &self.text[end..];
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Challenge {
        let mut challenges = parse(text);
        assert_eq!(challenges.len(), 1, "{text}: {challenges:?}");
        challenges.remove(0)
    }

    #[test]
    fn a_registrys_challenge_is_read() {
        let bearer = one(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(bearer.scheme, "bearer");
        assert_eq!(bearer.get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(bearer.get("scope"), Some("repository:a/b:pull,push"), "a comma inside quotes");
        assert_eq!(bearer.get("error"), None);
        let odd = one(r#"BEARER Realm = "x\"y" , error=insufficient_scope"#);
        assert_eq!((odd.get("realm"), odd.get("error")), (Some("x\"y"), Some("insufficient_scope")));
        assert_eq!(one("Basic").scheme, "basic");
        assert_eq!(one(r#"Basic realm="open"#).get("realm"), Some("open"), "an open quote ends at the end");
    }

    #[test]
    fn several_challenges_are_told_apart() {
        let text = r#"Negotiate YIIabc==, Basic realm="a, b", Digest qop="auth,auth-int", nonce=1, Bearer realm="z""#;
        let challenges = parse(text);
        let schemes: Vec<_> = challenges.iter().map(|challenge| challenge.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "digest", "bearer"]);
        assert_eq!(challenges[1].get("realm"), Some("a, b"));
        assert_eq!(challenges[2].get("nonce"), Some("1"));

        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"y\"".parse().unwrap());
        assert_eq!(of(&headers).len(), 2);
    }

    #[test]
    fn garbage_gives_nothing() {
        for text in ["", " , ,", "=", "\"", "\u{e4}"] {
            assert_eq!(parse(text), [], "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,80}|[a-zA-Z=\", \\\\]{0,60}") {
            parse(&text);
        }

        #[test]
        fn what_is_written_is_read(
            schemes in prop::collection::vec(("[A-Za-z]{1,8}", prop::collection::vec(("[a-z]{1,8}", "[ -~]{0,20}"), 1..4)), 1..4),
        ) {
            let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
            let text: Vec<String> = schemes.iter().map(|(scheme, parameters)| {
                let parameters: Vec<_> =
                    parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
                format!("{scheme} {}", parameters.join(", "))
            }).collect();
            let read = parse(&text.join(", "));
            prop_assert_eq!(read.len(), schemes.len());
            for (challenge, (scheme, parameters)) in read.iter().zip(&schemes) {
                prop_assert_eq!(&challenge.scheme, &scheme.to_ascii_lowercase());
                prop_assert_eq!(&challenge.parameters, parameters);
            }
        }
    }
}
