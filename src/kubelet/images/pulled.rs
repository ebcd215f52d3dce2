//! Whose credentials an image was pulled with: a pod gets it from the node only if it could pull it as well (upstream:
//! `pkg/kubelet/images/pullmanager`, with the policy NeverVerifyPreloadedImages).

use super::keyring::Credential;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// From so many images on it is looked which are there still.
const RECORDS_MAX: usize = 500;

/// Who may use an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Access {
    /// It was pulled without a pull secret.
    everybody: bool,
    /// Uids of secrets, and hashes of what they hold.
    credentials: BTreeSet<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Book {
    /// By image id and repository, with a space between.
    pulled: BTreeMap<String, Access>,
    /// Pulls that have begun, by image: krust may end before it knows how they went.
    begun: BTreeSet<String>,
}

/// Kept in a file.
pub struct Pulled {
    path: PathBuf,
    book: Mutex<Book>,
}

fn key(id: &str, repository: &str) -> String {
    format!("{id} {repository}")
}

/// What tells of a credential without telling it.
fn marks(credential: &Credential) -> [Option<String>; 2] {
    let text = format!("{}\0{}", credential.auth.username, credential.auth.password);
    let hash = format!("sha256:{}", hex::encode(Sha256::digest(text)));
    [credential.secret.as_ref().map(|uid| format!("uid:{uid}")), Some(hash)]
}

impl Pulled {
    pub fn open(path: &Path) -> Pulled {
        let text = std::fs::read(path).unwrap_or_default();
        Pulled {
            path: path.to_owned(),
            book: Mutex::new(serde_json::from_slice(&text).unwrap_or_default()),
        }
    }

    fn save(&self, book: &Book) {
        let part = self.path.with_extension("part");
        let text = serde_json::to_vec(book).unwrap_or_default();
        let saved = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &self.path));
        if let Err(error) = saved {
            tracing::warn!(%error, "It is not kept who may use the images of this node");
        }
    }

    /// A pull begins that may make an image present which not everybody may use.
    pub fn begin(&self, image: &str) {
        let mut book = self.book.lock();
        if book.begun.insert(image.to_owned()) {
            self.save(&book);
        }
    }

    /// It failed. What it left is nobody's.
    pub fn fail(&self, image: &str) {
        let mut book = self.book.lock();
        if book.begun.remove(image) {
            self.save(&book);
        }
    }

    /// It made this image present; None: nobody's secret was needed.
    pub fn succeed(&self, image: &str, id: &str, repository: &str, with: Option<&Credential>) {
        let mut book = self.book.lock();
        let begun = book.begun.remove(image);
        let access = book.pulled.entry(key(id, repository)).or_default();
        let before = access.clone();
        match with.filter(|credential| credential.secret.is_some()) {
            Some(credential) => access.credentials.extend(marks(credential).into_iter().flatten()),
            None => access.everybody = true,
        }
        if *access != before || begun {
            self.save(&book);
        }
    }

    /// Whether it must be asked for an image that is there because only some may use it; None where everybody may.
    pub fn is_restricted(&self, image: &str, id: &str, repository: &str) -> bool {
        let book = self.book.lock();
        match book.pulled.get(&key(id, repository)) {
            Some(access) => !access.everybody,
            None => book.begun.contains(image),
        }
    }

    /// Whether one of these has pulled the image before.
    pub fn is_known(&self, id: &str, repository: &str, credentials: &[Credential]) -> bool {
        let book = self.book.lock();
        let access = book.pulled.get(&key(id, repository));
        access.is_some_and(|access| {
            let mut marks = credentials.iter().flat_map(marks).flatten();
            marks.any(|mark| access.credentials.contains(&mark))
        })
    }

    /// Whether it is time to [`Pulled::keep`].
    pub fn is_long(&self) -> bool {
        self.book.lock().pulled.len() > RECORDS_MAX
    }

    /// Forgets images that are gone.
    pub fn keep(&self, ids: &HashSet<String>) {
        let mut book = self.book.lock();
        let is_there = |key: &str| key.split(' ').next().is_some_and(|id| ids.contains(id));
        book.pulled.retain(|key, _| is_there(key));
        self.save(&book);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RegistryAuth;

    fn credential(secret: Option<&str>, password: &str) -> Credential {
        Credential {
            auth: RegistryAuth {
                username: "u".to_owned(),
                password: password.to_owned(),
                server: String::new(),
            },
            secret: secret.map(str::to_owned),
        }
    }

    #[test]
    fn who_may_use_what() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pulls.json");
        let pulled = Pulled::open(&path);
        assert!(
            !pulled.is_restricted("a:1", "id", "a"),
            "the user's own images are everybody's"
        );
        pulled.begin("a:1");
        assert!(pulled.is_restricted("a:1", "id", "a"));
        assert!(
            Pulled::open(&path).is_restricted("a:1", "id", "a"),
            "after a crash as well"
        );
        pulled.fail("a:1");
        assert!(!pulled.is_restricted("a:1", "id", "a"));
        pulled.begin("a:1");
        pulled.succeed("a:1", "id", "a", Some(&credential(Some("one"), "x")));
        let pulled = Pulled::open(&path);
        assert!(pulled.is_restricted("a:1", "id", "a") && !pulled.is_restricted("b:1", "id", "b"));
        for (secret, password, known) in [("one", "changed", true), ("two", "x", true), ("two", "y", false)] {
            let credentials = [credential(Some(secret), password)];
            assert_eq!(pulled.is_known("id", "a", &credentials), known, "{secret} {password}");
        }
        assert!(!pulled.is_known("id", "a", &[]));
        assert!(!std::fs::read_to_string(&path).unwrap().contains("\"x\""));
        // The node's own credentials are for all of its pods.
        pulled.succeed("a:1", "id", "a", Some(&credential(None, "z")));
        assert!(!pulled.is_restricted("a:1", "id", "a"));
        pulled.succeed("c:1", "other", "c", Some(&credential(Some("one"), "x")));
        pulled.keep(&HashSet::from(["id".to_owned()]));
        assert!(!Pulled::open(&path).is_restricted("c:1", "other", "c"));
    }
}
