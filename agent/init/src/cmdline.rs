//! The kernel's command line, as far as it is meant for us: `keelson.KEY=VALUE`.

use std::time::Duration;

/// Our words of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// `keelson.manifest`: a path, or `data:` and base64.
    pub(crate) manifest: Option<String>,
    /// `keelson.verbose`: every line of every service goes to the console.
    pub(crate) is_verbose: bool,
    /// `keelson.trial`: the seconds that an updated system has to prove itself.
    pub(crate) trial: Option<Duration>,
    /// Words that begin with `keelson.` and mean nothing.
    pub(crate) unknown: Vec<String>,
}

impl CommandLine {
    pub(crate) fn parse(text: &str) -> Self {
        let mut line = Self::default();
        for word in words(text) {
            let Some(word) = word.strip_prefix("keelson.") else { continue };
            match word.split_once('=') {
                Some(("manifest", value)) => line.manifest = Some(value.to_owned()),
                Some(("trial", value)) if value.parse::<u32>().is_ok() => {
                    line.trial = value.parse().ok().map(Duration::from_secs);
                }
                None if word == "verbose" => line.is_verbose = true,
                Some(("verbose", value)) => line.is_verbose = value == "1",
                // The first stage found and checks the root by these; the others are for who looks at what runs, or at what
                // could be gone back to.
                Some(("root" | "verity" | "version" | "state", _)) => {}
                Some(_) | None => line.unknown.push(format!("keelson.{word}")),
            }
        }
        line
    }
}

/// Words are separated by blanks; double quotes keep blanks together, as the kernel reads them.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in text.trim().chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            blank if blank.is_whitespace() && !is_quoted => words.push(String::new()),
            other => words.last_mut().into_iter().for_each(|word| word.push(other)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_words_are_found_among_the_kernels() {
        let line = CommandLine::parse(
            "console=ttyS0 keelson.root=0f keelson.verity=1:0f keelson.state=1 keelson.manifest=\"/a b.toml\" quiet keelson.verbose keelson.trial=90 keelson.x=1\n",
        );
        let expected = CommandLine {
            manifest: Some("/a b.toml".into()),
            is_verbose: true,
            trial: Some(Duration::from_secs(90)),
            unknown: vec!["keelson.x=1".into()],
        };
        assert_eq!(line, expected);
        assert_eq!(CommandLine::parse(""), CommandLine::default());
    }
}
