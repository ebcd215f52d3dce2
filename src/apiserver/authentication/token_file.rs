//! A file of fixed tokens (upstream: `apiserver/pkg/authentication/token/tokenfile`): one token a line, with user
//! name, user id and, in quotes, groups.

use crate::apiserver::request::User;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("cannot read the token file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "token file '{}' must have at least 3 columns (token, user name, user uid), found {columns} in line {line}",
        path.display()
    )]
    Columns { path: PathBuf, line: usize, columns: usize },
    #[error("token file '{}': a quote in line {line} is not closed", path.display())]
    Quote { path: PathBuf, line: usize },
}

/// Users by the digest of their token: a look-up tells nothing about tokens by the time it takes.
#[derive(Clone, Debug, Default)]
pub struct TokenFile(HashMap<[u8; 32], User>);

impl TokenFile {
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line_number = number + 1;
            let columns = columns(line).ok_or_else(|| TokenFileError::Quote {
                path: path.to_owned(),
                line: line_number,
            })?;
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(TokenFileError::Columns {
                    path: path.to_owned(),
                    line: line_number,
                    columns: columns.len(),
                });
            };
            if token.is_empty() {
                tracing::warn!(path = %path.display(), line = line_number, "a line of the token file has an empty token and is left out");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',');
            let user = User {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                ..User::default()
            };
            if users.insert(digest(token), user).is_some() {
                tracing::warn!(path = %path.display(), line = line_number, "a token stands in the token file twice; the last one counts");
            }
        }
        Ok(Self(users))
    }

    pub fn user(&self, token: &str) -> Option<&User> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&digest(token))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The columns of a line; a quoted one may hold commas, and a doubled quote stands for one. None if a quote stays open.
fn columns(line: &str) -> Option<Vec<String>> {
    let (mut columns, mut column, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                column.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if column.is_empty() => quoted = true,
            ',' if !quoted => columns.push(std::mem::take(&mut column)),
            other => column.push(other),
        }
    }
    columns.push(column);
    (!quoted).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TokenFile, String> {
        TokenFile::parse(Path::new("tokens.csv"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_name_users() {
        let file = parse("# comment\nsecret,jane,7\nother,joe,8,\"dev,ops\",ignored\n,nobody,9\nsecret,last,10,one\n")
            .unwrap();
        let joe = file.user("other").unwrap();
        assert_eq!((joe.name.as_str(), joe.uid.as_str()), ("joe", "8"));
        assert_eq!(joe.groups, ["dev", "ops"]);
        assert_eq!(file.user("secret").unwrap().name, "last");
        assert!(file.user("").is_none() && file.user("jane").is_none());
    }

    #[test]
    fn lines_that_say_too_little_are_errors() {
        assert_eq!(
            parse("a,b").unwrap_err(),
            "token file 'tokens.csv' must have at least 3 columns (token, user name, user uid), found 2 in line 1"
        );
        assert!(parse("a,b,c,\"d").unwrap_err().contains("line 1 is not closed"));
    }
}
