//! Which controllers run (upstream: `--controllers` of kube-controller-manager, `app/controllermanager.go`).

/// By upstream's names of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    all: bool,
    named: Vec<String>,
    without: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting \"controllers.enabled\": {name:?} is not in the list of known controllers: {}", known.join(", "))]
pub struct UnknownController {
    name: String,
    known: Vec<&'static str>,
}

impl Selection {
    /// `*` is all of them, `NAME` one of them, `-NAME` all but that one, `-*` none.
    pub fn new(words: &[String]) -> Result<Self, UnknownController> {
        let mut selection = Self {
            all: false,
            named: Vec::new(),
            without: Vec::new(),
        };
        for word in words {
            match word.as_str() {
                "*" => {
                    selection.all = true;
                    continue;
                }
                // An empty list, where that cannot be said.
                "-*" => continue,
                _ => {}
            }
            let name = word.strip_prefix('-').unwrap_or(word);
            if !super::NAMES.iter().any(|names| names.contains(&name)) {
                return Err(UnknownController {
                    name: name.to_owned(),
                    known: super::NAMES.concat(),
                });
            }
            let list = if name == word {
                &mut selection.named
            } else {
                &mut selection.without
            };
            list.push(name.to_owned());
        }
        Ok(selection)
    }

    /// Whether what has these names runs. Some that upstream can turn off one by one are one here.
    pub fn runs(&self, names: &[&str]) -> bool {
        let any = |list: &[String]| list.iter().any(|name| names.contains(&name.as_str()));
        any(&self.named) || (self.all && !any(&self.without))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(words: &[&str]) -> Result<Selection, UnknownController> {
        Selection::new(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_choose_controllers() {
        for (words, job, deployment, signing) in [
            (&["*"][..], true, true, true),
            (&[], false, false, false),
            (&["-*"], false, false, false),
            (&["job-controller"], true, false, false),
            (&["*", "-job-controller"], false, true, true),
            (&["-job-controller", "*", "deployment-controller"], false, true, true),
            (&["certificatesigningrequest-cleaner-controller"], false, false, true),
        ] {
            let selection = selection(words).unwrap();
            let signing_names = [
                "certificatesigningrequest-signing-controller",
                "certificatesigningrequest-cleaner-controller",
            ];
            let found = (
                selection.runs(&["job-controller"]),
                selection.runs(&["deployment-controller"]),
                selection.runs(&signing_names),
            );
            assert_eq!(found, (job, deployment, signing), "{words:?}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        let refused = selection(&["*", "-jobs"]).unwrap_err().to_string();
        let expected = "setting \"controllers.enabled\": \"jobs\" is not in the list of known controllers: ";
        assert!(
            refused.starts_with(expected) && refused.contains(", job-controller, "),
            "{refused}"
        );
    }

    #[test]
    fn names_are_of_one_controller_each() {
        let mut names = super::super::NAMES.concat();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name.ends_with("-controller")));
    }
}
