//! Who a container's process runs as, by the image's passwd and group files (upstream: `moby/sys/user`).

use super::super::SecurityContext;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Numbers that a process runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("{0} is not a user or group number")]
    OutOfRange(i64),
}

/// Contents of the image's files; empty where it has none.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

/// Puts together what the pod asks for and the image's `user[:group]`.
pub fn resolve(security: &SecurityContext, image_user: &str, accounts: &Accounts) -> Result<ResolvedUser, UserError> {
    let (image_name, image_group) = match image_user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (image_user, None),
    };
    let account = match security.run_as_user {
        Some(uid) => accounts.by_uid(number(uid)?),
        None if image_name.is_empty() => accounts.by_uid(0),
        None => accounts.by_name(image_name)?,
    };
    let gid = match (security.run_as_group, security.run_as_user, image_group) {
        (Some(gid), _, _) => number(gid)?,
        (None, None, Some(group)) if !group.is_empty() => accounts.group(group)?,
        _ => account.gid,
    };
    let of_image = account.name.filter(|_| !security.strict_groups);
    let mut additional: BTreeSet<u32> = of_image.map(|name| accounts.groups_of(&name)).unwrap_or_default();
    for group in &security.supplemental_groups {
        additional.insert(number(*group)?);
    }
    additional.insert(gid);
    Ok(ResolvedUser {
        uid: account.uid,
        gid,
        additional_gids: additional.into_iter().collect(),
    })
}

fn number(value: i64) -> Result<u32, UserError> {
    u32::try_from(value).map_err(|_| UserError::OutOfRange(value))
}

struct Account {
    name: Option<String>,
    uid: u32,
    gid: u32,
}

impl Accounts {
    /// name:password:uid:gid:…
    fn entries(&self) -> impl Iterator<Item = Account> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some(Account {
                name: Some(fields.first()?.to_string()),
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
            })
        })
    }

    /// A number without an entry is a user all the same, of root's group.
    fn by_uid(&self, uid: u32) -> Account {
        let found = self.entries().find(|account| account.uid == uid);
        found.unwrap_or(Account {
            name: None,
            uid,
            gid: 0,
        })
    }

    fn by_name(&self, name: &str) -> Result<Account, UserError> {
        let found = self.entries().find(|account| account.name.as_deref() == Some(name));
        match (found, name.parse()) {
            (Some(account), _) => Ok(account),
            (None, Ok(uid)) => Ok(self.by_uid(uid)),
            (None, Err(_)) => Err(UserError::NoUser(name.to_string())),
        }
    }

    /// name:password:gid:members
    fn group(&self, name: &str) -> Result<u32, UserError> {
        let found = self.group.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (*fields.first()? == name).then(|| fields.get(2)?.parse().ok())?
        });
        found
            .or_else(|| name.parse().ok())
            .ok_or_else(|| UserError::NoGroup(name.to_string()))
    }

    fn groups_of(&self, name: &str) -> BTreeSet<u32> {
        let member = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let member = fields.get(3)?.split(',').any(|member| member.trim() == name);
            member.then(|| fields.get(2)?.parse().ok())?
        };
        self.group.lines().filter_map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/sh\nbroken\n".into(),
            group: "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\n".into(),
        }
    }

    fn resolved(security: SecurityContext, image: &str) -> Result<(u32, u32, Vec<u32>), UserError> {
        resolve(&security, image, &accounts()).map(|user| (user.uid, user.gid, user.additional_gids))
    }

    #[test]
    fn images_name_users_in_many_ways() {
        let none = SecurityContext::default;
        assert_eq!(resolved(none(), ""), Ok((0, 0, vec![0])));
        assert_eq!(resolved(none(), "web"), Ok((33, 34, vec![34, 50])));
        assert_eq!(resolved(none(), "33"), Ok((33, 34, vec![34, 50])));
        assert_eq!(resolved(none(), "web:logs"), Ok((33, 50, vec![50])));
        assert_eq!(resolved(none(), "1234:99"), Ok((1234, 99, vec![99])));
        assert_eq!(resolved(none(), "nobody"), Err(UserError::NoUser("nobody".into())));
        assert_eq!(resolved(none(), "web:none"), Err(UserError::NoGroup("none".into())));
    }

    #[test]
    fn the_pod_has_the_last_word() {
        let security = SecurityContext {
            run_as_user: Some(1000),
            supplemental_groups: vec![7],
            ..Default::default()
        };
        assert_eq!(resolved(security.clone(), "nobody:none"), Ok((1000, 0, vec![0, 7])));
        let grouped = SecurityContext {
            run_as_group: Some(2000),
            ..security
        };
        assert_eq!(resolved(grouped, "web"), Ok((1000, 2000, vec![7, 2000])));
        let strict = SecurityContext {
            run_as_user: Some(33),
            supplemental_groups: vec![7],
            strict_groups: true,
            ..Default::default()
        };
        assert_eq!(resolved(strict, ""), Ok((33, 34, vec![7, 34])));
        let negative = SecurityContext {
            run_as_user: Some(-1),
            ..Default::default()
        };
        assert_eq!(resolved(negative, ""), Err(UserError::OutOfRange(-1)));
    }
}
