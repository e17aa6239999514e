// SPDX-License-Identifier: Apache-2.0
//! Resource limits of processes (getrlimit(2)): the configuration's, for every container. Without any a
//! container has those that the daemon was started with.

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

use super::{NodeFacts, SpecError};

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// Of what.
    pub kind: PosixRlimitType,
    /// What applies.
    pub soft: u64,
    /// Up to where the process may raise it.
    pub hard: u64,
}

/// No limit.
pub const UNLIMITED: u64 = u64::MAX;

const KINDS: [(&str, PosixRlimitType, Resource); 16] = [
    ("as", PosixRlimitType::RlimitAs, Resource::RLIMIT_AS),
    ("core", PosixRlimitType::RlimitCore, Resource::RLIMIT_CORE),
    ("cpu", PosixRlimitType::RlimitCpu, Resource::RLIMIT_CPU),
    ("data", PosixRlimitType::RlimitData, Resource::RLIMIT_DATA),
    ("fsize", PosixRlimitType::RlimitFsize, Resource::RLIMIT_FSIZE),
    ("locks", PosixRlimitType::RlimitLocks, Resource::RLIMIT_LOCKS),
    ("memlock", PosixRlimitType::RlimitMemlock, Resource::RLIMIT_MEMLOCK),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue, Resource::RLIMIT_MSGQUEUE),
    ("nice", PosixRlimitType::RlimitNice, Resource::RLIMIT_NICE),
    ("nofile", PosixRlimitType::RlimitNofile, Resource::RLIMIT_NOFILE),
    ("nproc", PosixRlimitType::RlimitNproc, Resource::RLIMIT_NPROC),
    ("rss", PosixRlimitType::RlimitRss, Resource::RLIMIT_RSS),
    ("rtprio", PosixRlimitType::RlimitRtprio, Resource::RLIMIT_RTPRIO),
    ("rttime", PosixRlimitType::RlimitRttime, Resource::RLIMIT_RTTIME),
    ("sigpending", PosixRlimitType::RlimitSigpending, Resource::RLIMIT_SIGPENDING),
    ("stack", PosixRlimitType::RlimitStack, Resource::RLIMIT_STACK),
];

// === impl Rlimit ===

impl Rlimit {
    /// Reads `nofile=1024:65536`, or `core=0` for both; `unlimited` and -1 are no limit.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "is not of the form \"nofile=1024:65536\" or \"core=unlimited\"";
        let (name, values) = text.split_once('=').ok_or(FORM)?;
        let kind = KINDS.iter().find(|(known, ..)| *known == name).map(|(_, kind, _)| *kind);
        let kind = kind.ok_or_else(|| {
            format!("names no limit: there are {}", KINDS.map(|(known, ..)| known).join(", "))
        })?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let value = |text: &str| match text {
            "unlimited" | "-1" => Ok(UNLIMITED),
            _ => text.parse::<u64>().map_err(|_| FORM.to_owned()),
        };
        let (soft, hard) = (value(soft)?, value(hard)?);
        if soft > hard {
            return Err("has a soft limit above its hard one".to_owned());
        }
        Ok(Self { kind, soft, hard })
    }

    /// Not above `most`.
    fn within(&self, most: u64) -> Self {
        Self { kind: self.kind, soft: self.soft.min(most), hard: self.hard.min(most) }
    }
}

/// The limits that this daemon can set: without `CAP_SYS_RESOURCE` nothing above its own hard limits, at which
/// runtimes would fail.
pub fn within_reach(wanted: &[Rlimit], facts: &NodeFacts) -> Vec<Rlimit> {
    let reach = |limit: &Rlimit| {
        if facts.can_raise_limits() {
            return limit.clone();
        }
        let own = KINDS.iter().find(|(_, kind, _)| *kind == limit.kind);
        let most = own.and_then(|(_, _, resource)| getrlimit(*resource).ok()).map_or(UNLIMITED, |it| it.1);
        let can = limit.within(most);
        if can != *limit {
            tracing::warn!(limit = ?limit.kind, wanted = limit.hard, can = most, "an ulimit above the daemon's own hard limit is cut");
        }
        can
    };
    wanted.iter().map(reach).collect()
}

/// `process.rlimits`.
pub(super) fn of_process(limits: &[Rlimit]) -> Result<Option<Vec<PosixRlimit>>, SpecError> {
    if limits.is_empty() {
        return Ok(None);
    }
    let convert = |limit: &Rlimit| {
        PosixRlimitBuilder::default()
            .typ(limit.kind)
            .soft(limit.soft)
            .hard(limit.hard)
            .build()
            .map_err(|error| SpecError::invalid("containers.ulimits", error.to_string()))
    };
    limits.iter().map(convert).collect::<Result<Vec<_>, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::facts;

    #[test]
    fn what_is_read() {
        let parsed = |text| Rlimit::parse(text).map(|it| (it.kind, it.soft, it.hard));
        use PosixRlimitType::{RlimitCore, RlimitNofile};
        assert_eq!(parsed("nofile=1024:65536"), Ok((RlimitNofile, 1024, 65536)));
        assert_eq!(parsed("core=0"), Ok((RlimitCore, 0, 0)));
        assert_eq!(parsed("core=0:-1"), Ok((RlimitCore, 0, UNLIMITED)));
        assert_eq!(parsed("core=unlimited"), Ok((RlimitCore, UNLIMITED, UNLIMITED)));
        for (text, problem) in [
            ("nofile", "is not of the form"),
            ("nofile=", "is not of the form"),
            ("nofile=x:1", "is not of the form"),
            ("files=1", "names no limit: there are as, core"),
            ("nofile=2:1", "has a soft limit above its hard one"),
            ("nofile=unlimited:1", "has a soft limit above its hard one"),
        ] {
            assert!(parsed(text).unwrap_err().contains(problem), "{text}");
        }
    }

    #[test]
    fn nothing_is_set_that_the_daemon_may_not_set() {
        let wanted = [Rlimit::parse("nofile=unlimited").unwrap(), Rlimit::parse("core=0").unwrap()];
        assert_eq!(within_reach(&wanted, &facts()), wanted);
        let mut node = facts();
        node.capabilities.remove(&oci_spec::runtime::Capability::SysResource);
        let own = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
        let cut = within_reach(&wanted, &node);
        assert_eq!((cut[0].soft, cut[0].hard), (own, own));
        assert_eq!(cut[1], wanted[1]);
    }

    #[test]
    fn none_is_none() {
        assert_eq!(of_process(&[]).unwrap(), None);
        let limits = of_process(&[Rlimit::parse("core=1:2").unwrap()]).unwrap().unwrap();
        assert_eq!((limits[0].soft(), limits[0].hard()), (1, 2));
    }
}
