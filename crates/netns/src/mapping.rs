// SPDX-License-Identifier: Apache-2.0
//! Which ids of a user namespace are which ids of the host. Pure.
//!
//! ```text
//! /proc/PID/uid_map    0 100000 65536        container id, host id, how many (user_namespaces(7))
//! ```

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Lines that the kernel takes (`UID_GID_MAP_MAX_EXTENTS`).
const MOST: usize = 340;

/// A range of ids: `length` ids from `container_id` on are the host's from `host_id` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first id inside.
    pub container_id: u32,
    /// The first id on the host.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

/// The ids of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserMappings {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

// === impl UserMappings ===

impl UserMappings {
    /// What a user inside is on the host; `None`: it does not exist there.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        on_host(&self.uids, uid)
    }

    /// What a group inside is on the host; `None`: it does not exist there.
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        on_host(&self.gids, gid)
    }

    /// Checks what the kernel demands of both maps, and that root exists inside: it is who makes the other
    /// namespaces. [`Error::InvalidMapping`].
    pub fn validate(&self) -> Result<()> {
        self.validate_ranges()?;
        for (which, mappings) in [("uids", &self.uids), ("gids", &self.gids)] {
            if on_host(mappings, 0).is_none() {
                return Err(Error::InvalidMapping { which, problem: "id 0 is not mapped".to_owned() });
            }
        }
        Ok(())
    }

    /// Checks what the kernel demands of both maps, also of a mount's. [`Error::InvalidMapping`].
    pub fn validate_ranges(&self) -> Result<()> {
        check("uids", &self.uids)?;
        check("gids", &self.gids)
    }
}

fn on_host(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id)?;
        if offset < mapping.length { mapping.host_id.checked_add(offset) } else { None }
    })
}

fn check(which: &'static str, mappings: &[IdMapping]) -> Result<()> {
    let refuse = |problem: String| Err(Error::InvalidMapping { which, problem });
    if mappings.len() > MOST {
        return refuse(format!("{} ranges; the kernel takes {MOST}", mappings.len()));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        if mapping.length == 0 {
            return refuse(format!("range {index} is empty"));
        }
        // The last id of all stands for "none" and cannot be mapped.
        let end = |first: u32| first.checked_add(mapping.length);
        if end(mapping.container_id).is_none() || end(mapping.host_id).is_none() {
            return refuse(format!("range {index} goes beyond the largest id"));
        }
        for other in &mappings[..index] {
            let meets = |a: u32, b: u32| a < b.saturating_add(other.length) && b < a + mapping.length;
            if meets(mapping.container_id, other.container_id) || meets(mapping.host_id, other.host_id) {
                return refuse(format!("range {index} overlaps another"));
            }
        }
    }
    Ok(())
}

/// The text of `/proc/PID/uid_map` or `gid_map`.
pub(crate) fn text(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, it| {
        let _ = writeln!(text, "{} {} {}", it.container_id, it.host_id, it.length);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(container_id: u32, host_id: u32, length: u32) -> IdMapping {
        IdMapping { container_id, host_id, length }
    }

    fn problem(uids: &[IdMapping]) -> Option<String> {
        let mappings = UserMappings { uids: uids.to_vec(), gids: vec![range(0, 1, 1)] };
        mappings.validate().err().map(|error| error.to_string())
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_by_name() {
        assert_eq!(problem(&[range(0, 100_000, 65536)]), None);
        assert_eq!(problem(&[range(0, 100_000, 10), range(10, 5, 3)]), None);
        for (uids, expected) in [
            (&[][..], "id 0 is not mapped"),
            (&[range(1, 100_000, 65536)], "id 0 is not mapped"),
            (&[range(0, 100_000, 0)], "range 0 is empty"),
            (&[range(0, u32::MAX, 1)], "range 0 goes beyond the largest id"),
            (&[range(0, 5, u32::MAX)], "range 0 goes beyond the largest id"),
            (&[range(0, 10, 10), range(9, 30, 1)], "range 1 overlaps another"),
            (&[range(0, 10, 10), range(10, 19, 5)], "range 1 overlaps another"),
            (&[range(0, 1, 1); 341], "341 ranges; the kernel takes 340"),
        ] {
            let said = problem(uids).unwrap();
            assert_eq!(said, format!("invalid mapping of uids: {expected}"));
        }
        let gids = UserMappings { uids: vec![range(0, 1, 1)], gids: Vec::new() };
        assert!(gids.validate().unwrap_err().to_string().contains("gids"));
    }

    #[test]
    fn ids_are_looked_up_in_every_range() {
        let mappings =
            UserMappings { uids: vec![range(0, 100_000, 10), range(10, 5, 3)], gids: vec![range(0, 7, 1)] };
        for (inside, outside) in
            [(0, Some(100_000)), (9, Some(100_009)), (10, Some(5)), (12, Some(7)), (13, None)]
        {
            assert_eq!(mappings.host_uid(inside), outside, "{inside}");
        }
        assert_eq!((mappings.host_gid(0), mappings.host_gid(1)), (Some(7), None));
        assert_eq!(text(&mappings.uids), "0 100000 10\n10 5 3\n");
    }

    proptest! {
        #[test]
        fn any_ranges_are_taken_or_refused(
            ranges in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..6),
            id in any::<u32>(),
        ) {
            let uids: Vec<_> = ranges.into_iter().map(|(c, h, l)| range(c, h, l)).collect();
            let mappings = UserMappings { uids, gids: vec![range(0, 0, 1)] };
            if mappings.validate().is_ok() {
                let images: Vec<u32> = mappings.host_uid(id).into_iter().chain(mappings.host_uid(0)).collect();
                // Two ids of the container are never one of the host.
                prop_assert!(id == 0 || images.len() < 2 || images[0] != images[1]);
            } else {
                let _ = mappings.host_uid(id);
            }
        }
    }
}
